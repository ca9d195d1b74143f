"""A matrix of requests to OpenAI's API: an engine's own answers, and the gateway's."""

import json
import urllib.error
import urllib.request
from typing import Any

from modelserver.messaging.stream_parts import assemble, slim
from tests.acceptance.product import PATIENCE, Product

#: What differs from one answer to the next of the same engine.
PASSING = (
    *("id", "item_id", "created", "created_at", "sequence_number"),
    *("metadata", "sglext"),
)
HI = [{"role": "user", "content": "hi"}]
LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
CALLED = {"type": "function", "function": {"name": "look_up"}}
#: vLLM gives several answers only where it draws them; of one token to draw from.
SURE = {"temperature": 1, "top_k": 1}
#: Requests to the engine that writes, by path.
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("completions", {"prompt": "Once upon a time", "max_tokens": None}),
    ("completions", {"prompt": "Once", "echo": True, "logprobs": 2}),
    ("completions", {"prompt": [5, 6, 7], "n": 2, **SURE}),
    ("completions", {"prompt": "Once", "stop": [" "], "ignore_eos": True}),
    ("completions", {"prompt": "Once", "regex": "[a-c]{3}"}),
    ("chat/completions", {"messages": HI}),
    ("chat/completions", {"messages": HI, "logprobs": True, "top_logprobs": 2}),
    ("chat/completions", {"messages": HI, "n": 2, **SURE}),
    ("chat/completions", {"messages": HI, "response_format": {"type": "json_object"}}),
    ("chat/completions", {"messages": HI, "tools": [LOOK_UP], "tool_choice": "auto"}),
    ("chat/completions", {"messages": HI, "tools": [LOOK_UP], "tool_choice": CALLED}),
    ("responses", {"input": "hi", "max_output_tokens": 8, "store": False}),
]
#: Those that are asked for as streams too: what differs in chunks is in one of them.
STREAMED = (1, 3, 5, 6, 7, 9, 10, 11)
#: Path, body, whether a stream.
MATRIX = [
    *((*request, False) for request in REQUESTS),
    *((*REQUESTS[place], True) for place in STREAMED),
]


def post(url: str, body: Any, key: str = "") -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            content = response.read()
            if response.headers["Content-Type"].startswith("application/json"):
                return response.status, json.loads(content)
            return response.status, content
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def ask_both(
    fleet: Product, engine: str, path: str, body: Any
) -> list[tuple[int, Any]]:
    """What the engine itself answers, and what comes through the gateway."""
    url = fleet.engine(engine).url
    key = fleet.settings.keyring().key(url.removeprefix("http://"))
    direct = post(f"{url}/v1/{path}", body, key)
    return [direct, post(f"{fleet.api_url}/{path}", body)]


def lasting(body: Any) -> Any:
    """An answer without what differs from one to the next."""
    if isinstance(body, list):
        return [lasting(each) for each in body]
    if not isinstance(body, dict):
        return body
    kept = {name: value for name, value in body.items() if name not in PASSING}
    return {name: lasting(value) for name, value in kept.items()}


def in_form(told: Any) -> Any:
    """A response of an engine, or an event with it, as OpenAI's clients read it.

    vLLM lists tokens by turn in its usage, always says that it is completed, and does
    not say whether it is kept; the gateway keeps it, where that is asked for.
    """
    response = told.get("response", told)
    if response.get("object") == "response":
        response.setdefault("store", False)
    for name, details in (response.get("usage") or {}).items():
        if name.endswith("_details"):
            numbers = {k: each for k, each in details.items() if isinstance(each, int)}
            response["usage"][name] = numbers
    if told.get("type") == "response.completed":
        told["type"] = f"response.{response['status']}"
    return told


def whole(content: bytes, is_engines: bool = False) -> Any:
    """What the events of a stream make, and fields; how they are cut is chance."""
    lines = content.decode().splitlines()
    told = [line[6:] for line in lines if line.startswith("data: ")]
    if told[-1] != "[DONE]":
        events = [json.loads(line) for line in told]
        return _response_events(list(map(in_form, events)) if is_engines else events)
    chunks = [json.loads(line) for line in told[:-1]]
    is_chat = any("delta" in each for chunk in chunks for each in chunk["choices"])
    made = assemble(map(slim, chunks), is_chat).body("")
    return lasting(made), _fields(chunks)


def _response_events(events: list[Any]) -> list[Any]:
    """The events of a stream of /v1/responses; parts of one text are one event."""
    found: list[Any] = []
    for event in events:
        last = found[-1] if found else {"type": ""}
        if event["type"] == last["type"] == "response.output_text.delta":
            last["delta"] += event["delta"]
        else:
            found.append(lasting(event))
    return found


def _fields(chunks: list[Any]) -> dict[Any, list[set[str]]]:
    """By choice: the fields of its first chunk, and of all together.

    Only the last chunk of a choice has its reason to end.
    """
    found: dict[Any, list[set[str]]] = {}
    ended = set()
    for chunk in chunks:
        for choice in chunk["choices"] or [{"index": "usage"}]:
            assert choice["index"] not in ended
            # OpenAI has "usage": null in all chunks but the last; engines leave it out.
            fields = {*chunk, *choice, *(choice.get("delta") or ())} - {"usage"}
            known = found.setdefault(choice["index"], [fields, set()])
            known[1] |= fields
            if choice.get("finish_reason"):
                ended.add(choice["index"])
    assert ended == found.keys() - {"usage"}
    return found


def check_same(fleet: Product, model: str, path: str, asked: Any, stream: bool) -> None:
    """The gateway's answer is that of the model's engine, field by field."""
    body = {"model": model, "temperature": 0, "max_tokens": 8, **asked}
    # None is for a field that is left out.
    body = {name: value for name, value in body.items() if value is not None}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    expected, told = ask_both(fleet, f"{model}-0", path, body)
    assert told[0] == expected[0]
    if expected[0] != 200:
        # Its words in OpenAI's form.
        said = expected[1].get("error", expected[1])["message"]
        assert said in told[1]["error"]["message"]
    elif stream:
        assert whole(told[1]) == whole(expected[1], is_engines=True)
    else:
        if path == "responses":
            in_form(expected[1])
        assert lasting(told[1]) == lasting(expected[1])
