"""What the programs share: trials by name, and plain HTTP to compare with.

A program's argument is a subject as JSON; it prints a line of JSON for each trial.
"""

import json
import sys
import traceback
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from typing import Any

SUBJECT = json.loads(sys.argv[1])
BASE_URL, WRITER, EMBEDDER = (
    SUBJECT[name] for name in ("base_url", "writer", "embedder")
)
HI = [{"role": "user", "content": "hi"}]
#: How many tokens most trials ask for, and how they come out the same each time.
TOKENS = 12
EXACT = {"temperature": 0, "max_tokens": TOKENS}
#: The vectors' length.
DIMENSIONS = 128
LOOK_UP = {
    "name": "look_up",
    "description": "Look a colour up.",
    "parameters": {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}

TOOL = {"type": "function", "function": LOOK_UP}
#: What a short response is asked with.
RESPONSE = {"input": "hi", "temperature": 0, "max_output_tokens": 9}
TEXTS = ("one", "two")

_trials: list[Callable[[], None]] = []


def trial(function: Callable[[], None]) -> Callable[[], None]:
    """A function whose assertions are one trial; its docstring is the trial's name."""
    _trials.append(function)
    return function


def run() -> None:
    """Run all trials of the program."""
    for function in _trials:
        wrong = ""
        try:
            function()
        except Exception as error:
            traceback.print_exc()
            wrong = f"{type(error).__name__}: {error}"
        print(json.dumps({"trial": function.__doc__, "wrong": wrong}), flush=True)


def raised(kind: type[Exception], function: Callable[[], object]) -> Any:
    """The error of this very class that a call raises."""
    try:
        function()
    except kind as error:
        if type(error) is kind:
            return error
        raise
    raise AssertionError(f"no {kind.__name__}")


def chat_streamed(chunks: Iterable[Any]) -> str:
    """The text of a chat's chunks."""
    parts = (each.choices[0].delta.content for each in chunks if each.choices)
    return "".join(part or "" for part in parts)


def response_streamed(events: Iterable[Any]) -> str:
    """The text of a response's events."""
    kind = "response.output_text.delta"
    return "".join(each.delta for each in events if each.type == kind)


def is_colour(arguments: str) -> bool:
    """Whether a call of ``LOOK_UP`` has the arguments that it takes."""
    return json.loads(arguments)["colour"] in ("red", "blue")


def ask(path: str, is_direct: bool = False, **body: Any) -> Any:
    """Post a body to the gateway, or directly to the writer's engine."""
    base = f"{SUBJECT['engine_url']}/v1" if is_direct else BASE_URL
    headers = {"Content-Type": "application/json"}
    if is_direct:
        headers["Authorization"] = f"Bearer {SUBJECT['engine_key']}"
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{base}/{path}", data, headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def chat_text(messages: Any = HI, **body: Any) -> str:
    """What the engine itself says to messages."""
    asked = {"model": WRITER, "messages": messages, **EXACT, **body}
    answer = ask("chat/completions", is_direct=True, **asked)
    return str(answer["choices"][0]["message"]["content"])


def completed(prompt: Any) -> str:
    """How the engine itself goes on after a prompt."""
    answer = ask("completions", True, model=WRITER, prompt=prompt, **EXACT)
    return str(answer["choices"][0]["text"])


def vector(text: Any) -> list[float]:
    """The vector of a text."""
    answer = ask("embeddings", model=EMBEDDER, input=text)
    return list(answer["data"][0]["embedding"])


def are_vectors(found: Iterable[Iterable[float]], texts: Sequence[str] = TEXTS) -> bool:
    """Whether these are the vectors of the texts, in order."""
    pairs = zip(found, texts, strict=True)
    return all(is_close([*map(float, each)], vector(text)) for each, text in pairs)


def is_close(one: list[float], other: list[float], most: float = 1e-5) -> bool:
    """Whether two vectors are the same but for rounding."""
    pairs = zip(one, other, strict=True)
    return max(abs(a - b) for a, b in pairs) < most
