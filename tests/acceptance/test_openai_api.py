"""OpenAI's API in front of real engines: their own answers, and OpenAI's own client."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from modelserver.messaging.stream_parts import assemble, slim
from tests.acceptance.product import CHAT, EMBED, PATIENCE, Product

pytestmark = pytest.mark.sglang

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


@pytest.mark.parametrize(
    ("path", "asked", "stream"),
    [
        *((*request, False) for request in REQUESTS),
        *((*request, True) for request in REQUESTS[1::2]),
    ],
)
def test_an_answer_is_the_engines_own(
    fleet: Product, path: str, asked: dict[str, Any], stream: bool
):
    body = {"model": "tiny-chat", "temperature": 0, "max_tokens": 8, **asked}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    expected, told = ask_both(fleet, CHAT, path, body)
    assert told[0] == expected[0]
    if stream and expected[0] == 200:
        assert whole(told[1]) == whole(expected[1])
    else:
        assert lasting(told[1]) == lasting(expected[1])


def test_vectors_are_the_engines_own(fleet: Product):
    body = {"model": "tiny-embed", "input": ["one", "two three"]}
    [(_, expected), (status, told)] = ask_both(fleet, EMBED, "embeddings", body)
    assert status == 200
    for ours, its in zip(told.pop("data"), expected.pop("data"), strict=True):
        assert ours.pop("embedding") == pytest.approx(its.pop("embedding"), abs=1e-6)
        assert ours == its
    # The engine's own name for it is the folder of its weights.
    assert lasting(told) == lasting(expected) | {"model": "tiny-embed"}


@pytest.fixture(scope="module")
def python_with_openai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment of its own, with OpenAI's client."""
    folder = tmp_path_factory.mktemp("openai")
    uv, python = find_uv_bin(), folder / "bin" / "python"
    subprocess.run(
        [uv, "venv", "--quiet", "--seed", "--python", sys.executable, folder],
        check=True,
    )
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "openai>=2"], check=True)
    return python


def test_openais_own_client_gets_what_it_asks_for(
    fleet: Product, python_with_openai: Path
):
    program = Path(__file__).with_name("openai_program.py")
    done = subprocess.run(
        [python_with_openai, program, fleet.api_url, "tiny-chat", "tiny-embed"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"tiny-chat", "tiny-embed"} <= set(told["models"])
    assert told["model"] == "tiny-chat"
    assert told["chat"] == told["streamed"]
    assert told["completion"][0] == told["awaited"]
    assert told["completion tokens"] == 24
    assert told["streamed tokens"] == 12
    # Weights by chance never come to its end.
    assert told["shaped"].startswith("{")
    assert told["vectors"][0] == told["vectors"][1] > 0
    assert told["same vector"] < 1e-6
    texts = {f"row-{number}": told["chat"] for number in range(3)}
    assert told["batch"] == ["completed", 3, texts, True]
    assert told["refused"] == [
        ["NotFoundError", "model_not_found", "model"],
        ["BadRequestError", None, "temperature"],
        ["BadRequestError", "context_length_exceeded", None],
        ["BadRequestError", None, "messages"],
    ]
