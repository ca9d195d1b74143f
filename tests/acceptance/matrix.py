"""A matrix of requests to OpenAI's API: an engine's own answers, and the gateway's."""

import json
import urllib.error
import urllib.request
from typing import Any

from modelserver.messaging.stream_parts import assemble, slim
from tests.acceptance.product import PATIENCE, Product

#: What differs from one answer to the next of the same engine.
PASSING = ("id", "created", "metadata", "sglext")
HI = [{"role": "user", "content": "hi"}]
LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
#: Requests to the engine that writes, by path.
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("completions", {"prompt": "Once upon a time"}),
    ("completions", {"prompt": "Once", "echo": True, "logprobs": 2}),
    ("completions", {"prompt": [5, 6, 7], "n": 2}),
    ("completions", {"prompt": "Once", "stop": [" "], "ignore_eos": True}),
    ("completions", {"prompt": "Once", "regex": "[a-c]{3}"}),
    ("chat/completions", {"messages": HI}),
    ("chat/completions", {"messages": HI, "logprobs": True, "top_logprobs": 2}),
    ("chat/completions", {"messages": HI, "n": 2}),
    ("chat/completions", {"messages": HI, "response_format": {"type": "json_object"}}),
    ("chat/completions", {"messages": HI, "tools": [LOOK_UP], "tool_choice": "auto"}),
]
#: All of them whole, and every second one as a stream: path, body, whether a stream.
MATRIX = [
    *((*request, False) for request in REQUESTS),
    *((*request, True) for request in REQUESTS[1::2]),
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


def lasting(body: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from one to the next."""
    return {name: value for name, value in body.items() if name not in PASSING}


def whole(content: bytes) -> dict[str, Any]:
    """What the events of a stream make: how they are cut is chance."""
    lines = content.decode().splitlines()
    told = [line[6:] for line in lines if line.startswith("data: ")]
    assert told.pop() == "[DONE]"
    chunks = [slim(json.loads(line)) for line in told]
    is_chat = any("delta" in each for chunk in chunks for each in chunk["choices"])
    return lasting(assemble(chunks, is_chat).body(""))


def check_same(fleet: Product, model: str, path: str, asked: Any, stream: bool) -> None:
    """The gateway's answer is that of the model's engine, field by field."""
    body = {"model": model, "temperature": 0, "max_tokens": 8, **asked}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    expected, told = ask_both(fleet, f"{model}-0", path, body)
    assert told[0] == expected[0]
    if expected[0] != 200:
        # Its words in OpenAI's form.
        said = expected[1].get("error", expected[1])["message"]
        assert said in told[1]["error"]["message"]
    elif stream:
        assert whole(told[1]) == whole(expected[1])
    else:
        assert lasting(told[1]) == lasting(expected[1])
