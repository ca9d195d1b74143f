"""The faults an engine can be given, and what they do to an answer."""

import asyncio
import base64
import itertools
import random
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson

#: Generations and vectors as engines give them under some conditions.
SHAPES = frozenset(
    {
        "empty",
        "null",
        "abort",
        "reasoning",
        "reasoning_content",
        "tool",
        "nan",
        "zeros",
        "short",
        "odd-base64",
        "no-vector",
        "unsteady",
    }
)
#: How often a vector has been made unsteady: its sign changes each time.
_unsteady = itertools.count()


class FaultError(ValueError):
    """A fault was asked for that does not exist or has a senseless value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with the engine; the default is nothing.

    Each field is also a flag of the server and a key of `POST /fault`.
    """

    #: Factor on every duration.
    slow: float = 1.0
    #: Take requests, answer none and stop the tokens. With a rate below 1 only
    #: the requests that draw it hang, and the engine's health stays as it is.
    hang: bool = False
    #: Answer 200 on health whatever the engine's state.
    lie_health: bool = False
    #: Refuse generations with this HTTP status.
    status: int | None = None
    #: Seconds in the `Retry-After` header of a refusal.
    retry_after: int | None = None
    #: 200 with JSON that stops half way.
    half_json: bool = False
    #: 200 with no choices (no data, for an embedding).
    no_choices: bool = False
    #: 200 with an empty text (an empty vector, for an embedding).
    empty_text: bool = False
    #: 200 with JSON that is not an answer at all.
    wrong_json: bool = False
    #: 200 with an answer of this shape, one of SHAPES.
    shape: str = ""
    #: Only requests strike that have this text in them; of an embedding, only its
    #: vectors are spoiled.
    marked: str = ""
    #: Send the answer one byte a second.
    drip: bool = False
    #: Close the connection without an answer.
    reset: bool = False
    #: End the process on the first request after `after` more.
    die: bool = False
    after: int = 0
    #: End the process when so many tokens of a stream were sent; 0 for never.
    dies_at: int = 0
    #: End the process when it has worked on a prompt with this text in it.
    poison: str = ""
    #: Health 503 and requests 503, for ever.
    never_ready: bool = False
    #: The same, for so many seconds from now.
    ready_after: float = 0.0
    #: Share of the requests (of the steps, of the health checks) that it strikes.
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise FaultError(f"rate must lie in 0..1, not {self.rate}")
        if self.slow <= 0:
            raise FaultError(f"slow must be above 0, not {self.slow}")
        if self.status is not None and not 400 <= self.status <= 599:
            raise FaultError(f"status must lie in 400..599, not {self.status}")
        if self.shape and self.shape not in SHAPES:
            raise FaultError(f"shape must be one of {sorted(SHAPES)}")
        if self.after < 0 or self.ready_after < 0:
            raise FaultError("after and ready_after must not be negative")

    @property
    def hangs_whole(self) -> bool:
        """Whether the engine as a whole hangs, not single requests."""
        return self.hang and self.rate >= 1

    def as_json(self) -> dict[str, Any]:
        """The fields that differ from a healthy engine's."""
        healthy = asdict(Fault())
        return {k: v for k, v in asdict(self).items() if v != healthy[k]}


def value_type(name: str) -> type:
    """The type of a fault's value: bool, int, float or str."""
    annotation = Fault.__annotations__[name]
    return annotation if annotation in (bool, int, float, str) else int


def fault_from_json(data: object) -> Fault:
    """Build a fault from decoded JSON.

    Raises FaultError for an unknown name or a value of the wrong type.
    """
    if not isinstance(data, dict):
        raise FaultError("a fault is a JSON object")
    known = {one.name for one in fields(Fault)}
    for name, value in data.items():
        if name not in known:
            raise FaultError(f"unknown fault {name!r}; known: {sorted(known)}")
        wanted = value_type(name)
        given = int if wanted is float and type(value) is int else wanted
        if type(value) is not given:
            raise FaultError(f"{name} must be a {wanted.__name__}, not {value!r}")
    return Fault(**data)


#: What a tool call looks like.
TOOL_CALL = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"word": "owl"}'},
}


def _reshape_choice(shape: str, choice: dict[str, Any]) -> None:
    message = choice.get("message", choice)
    name = "content" if "message" in choice else "text"
    if shape == "empty":
        message[name], choice["finish_reason"] = "", "stop"
    elif shape == "null":
        message[name], choice["finish_reason"] = None, "stop"
    elif shape == "abort":
        half = message[name][: len(message[name]) // 2]
        message[name], choice["finish_reason"] = half, "abort"
    elif shape == "tool":
        message |= {"content": None, "tool_calls": [TOOL_CALL]}
        choice["finish_reason"] = "tool_calls"
    elif shape.startswith("reasoning"):
        message |= {"content": None, shape: "Let me think"}


def _reshape_vector(shape: str, vector: list[float] | str) -> list[float] | str | None:
    if shape == "no-vector":
        return None
    packed = vector_bytes(vector)
    if shape == "nan":
        packed = struct.pack("<f", float("nan")) + packed[4:]
    elif shape == "unsteady":
        sign = -1 if next(_unsteady) % 2 else 1
        packed = struct.pack("<f", sign * 1000.0) + packed[4:]
    elif shape == "zeros":
        packed = bytes(len(packed))
    elif shape == "short":
        packed = packed[4:]
    elif shape == "odd-base64":
        packed = packed[1:]
    if isinstance(vector, str) or len(packed) % 4:
        return base64.b64encode(packed).decode()
    return array("f", packed).tolist()


def vector_bytes(vector: list[float] | str) -> bytes:
    """A vector as float32, however it is encoded."""
    if isinstance(vector, str):
        return base64.b64decode(vector)
    return array("f", vector).tobytes()


def spoil(fault: Fault, answer: dict[str, Any], texts: Sequence[str] = ()) -> bytes:
    """Encode an answer the way the fault leaves it; ``texts`` are what was asked."""
    if fault.shape:
        for choice in answer.get("choices", []):
            _reshape_choice(fault.shape, choice)
        for item in answer.get("data", []):
            if fault.marked in texts[item["index"]]:
                item["embedding"] = _reshape_vector(fault.shape, item["embedding"])
    if fault.wrong_json:
        return b'{"result": "this is not what you asked for"}'
    if fault.no_choices:
        answer = answer | {"data" if "data" in answer else "choices": []}
    if fault.empty_text:
        for item in answer.get("choices", []):
            if "message" in item:
                item["message"]["content"] = ""
            else:
                item["text"] = ""
        for item in answer.get("data", []):
            item["embedding"] = []
    body = orjson.dumps(answer)
    return body[: len(body) // 2] if fault.half_json else body


class FaultBoard:
    """The fault in force; it is replaced as a whole, by `put`."""

    def __init__(self, fault: Fault, seed: int, clock: Callable[[], float]) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._changed = asyncio.Event()
        self.put(fault)

    def put(self, fault: Fault) -> None:
        """Replace the fault; whatever hung goes on, unless the new one hangs too."""
        self.fault = fault
        self._served = 0
        self._ready_at = self._clock() + fault.ready_after
        self._changed.set()
        self._changed = asyncio.Event()

    def strikes(self) -> bool:
        """Draw whether the fault strikes this time."""
        return self.fault.rate >= 1 or self._random.random() < self.fault.rate

    def slow_factor(self) -> float:
        if self.fault.slow == 1 or not self.strikes():
            return 1.0
        return self.fault.slow

    def ready(self) -> bool:
        if self.fault.never_ready:
            return not self.strikes()
        return self._clock() >= self._ready_at

    def dies_now(self, struck: bool) -> bool:
        """Count a request; say whether it is one to die on."""
        self._served += 1
        return struck and self._served > self.fault.after

    async def changed(self) -> None:
        await self._changed.wait()

    async def moving(self) -> None:
        """Wait while the whole engine hangs."""
        while self.fault.hangs_whole:
            await self._changed.wait()
