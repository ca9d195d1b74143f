"""The values that everything else passes around. All of them are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = Any

#: The type of an engine that somebody else runs: it exists only where ``[[engines]]``
#: names its URL, and nothing of it can be started or ended.
EXTERNAL = "external"


class Kind(StrEnum):
    """What a model is asked for."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"


class EngineState(StrEnum):
    """Where an engine stands in its life; the table of moves is policy/lifecycle."""

    PENDING = "PENDING"  # wanted, not started; the report's reason says why
    STARTING = "STARTING"  # its process runs, no token has come back yet
    READY = "READY"  # a token came back
    DEGRADED = "DEGRADED"  # serves as READY does, with what control thinks it can bear
    DRAINING = "DRAINING"  # takes nothing new, finishes what it has
    STOPPED = "STOPPED"  # ended because somebody wanted it
    BACKOFF = "BACKOFF"  # died or never got ready; waits to be started again
    FATAL = "FATAL"  # will not heal by starting it again

    @property
    def serves(self) -> bool:
        """Whether an engine in this state takes requests."""
        return self in (EngineState.READY, EngineState.DEGRADED)


class Outcome(StrEnum):
    """How one request to an engine ended."""

    OK = "ok"
    ENGINE_FAULT = "engine-fault"
    REQUEST_FAULT = "request-fault"
    CANCELLED = "cancelled"


def engine_id(model: str, number: int) -> str:
    """The id of a model's engine: the model's name, and a number from 0."""
    return f"{model}-{number}"


def split_engine_id(engine: str) -> tuple[str, int]:
    """The model and the number of an engine's id; -1 for an id without a number.

    >>> split_engine_id("qwen3-8b-2"), split_engine_id("mine")
    (('qwen3-8b', 2), ('', -1))
    """
    model, _, number = engine.rpartition("-")
    return model, int(number) if number.isdigit() else -1


class Cause(StrEnum):
    """Why an engine is ended. Decisions go by this; people read the reason."""

    NONE = ""
    ASKED = "asked"  # an operator said so
    CHANGED = "changed"  # its section of the fleet file, or its place, is another now
    RELEASED = "released"  # it is wanted no longer, or its launcher ends
    SLOW = "slow"  # its requests take longer than they should
    SLOW_CANARIES = "canary"  # its canaries do
    ERRORS = "error"  # it fails too many requests
    HUNG = "hang"  # it answers nothing any more

    @property
    def is_fault(self) -> bool:
        """Whether the engine is at fault, so that an incident is worth keeping."""
        return self in _FAULTS


_FAULTS = frozenset({Cause.SLOW, Cause.SLOW_CANARIES, Cause.ERRORS, Cause.HUNG})


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine that the fleet wants: which model, on which host, in what way.

    ``gpus`` are indexes on that host as the fleet file pins them; ``uuids`` are the
    GPUs that placement chose, ``()`` where the engine needs none. ``port`` 0 means that
    the launcher chooses a free one. ``url`` is set for an engine that somebody else
    runs.
    """

    id: str
    model: str
    host: str
    gpus: tuple[int, ...] = ()
    port: int = 0
    url: str = ""
    uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What control wants of one engine; level-triggered, so losing one only delays."""

    spec: EngineSpec
    #: The incarnation that must go, 0 for none. Once the engine has a later one the
    #: wish is fulfilled, so a stale wish does nothing.
    relaunch: int = 0
    #: Why it must go, for people.
    reason: str = ""
    #: Why it must go, for decisions.
    cause: Cause = Cause.NONE
    #: How many requests it may have at once; 0 for the model's ``max_running``, which
    #: it never exceeds.
    limit: int = 0
    #: Why the engine counts as degraded, "" where it does not.
    degraded: str = ""
    #: Why it gets nothing new for now, "" where it does.
    hold: str = ""
    #: Whether an operator holds it, not control.
    drained: bool = False
    #: The incarnation whose requests have to run elsewhere.
    abort: int = 0
    #: The number of the last round of canaries that control asked for; a higher one
    #: than before asks for another round.
    canary: int = 0
    #: The fencing token of the controller that wrote it.
    token: int = 0


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What a launcher reports about one engine. Times are seconds of the store's clock.

    ``incarnation`` counts the starts of this engine, for ever upwards. ``alive_at`` is
    when it last proved itself by a token; 0 before the first. ``died`` is the last
    incarnation that ended by itself while it served, 0 if none has. ``progress`` is
    what a starting engine does, by its log. ``hung_seconds`` is since when it has had
    requests and given no token, in steps of a few seconds; 0 while it is well.
    ``stale`` says what changed in the fleet since it was started, if that needs a
    restart. ``hold`` says why it gets nothing new although it serves, ``abort`` names
    the incarnation whose requests its workers have to run elsewhere.
    """

    id: str
    model: str
    host: str
    state: EngineState
    incarnation: int = 0
    url: str = ""
    pid: int = 0
    limit: int = 0
    gpus: tuple[int, ...] = ()
    reason: str = ""
    since: float = 0.0
    alive_at: float = 0.0
    starts: int = 0
    died: int = 0
    log: str = ""
    progress: str = ""
    hung_seconds: int = 0
    stale: str = ""
    hold: str = ""
    abort: int = 0

    @property
    def serves(self) -> bool:
        """Whether it takes requests, ready or degraded."""
        return self.state.serves

    @property
    def is_given_work(self) -> bool:
        """Whether it is to get new requests: it serves, and nobody holds it."""
        return self.serves and not self.hold and not self.is_called_off

    @property
    def is_called_off(self) -> bool:
        """Whether the requests on it have to run elsewhere."""
        return bool(self.abort) and self.abort == self.incarnation


@dataclass(frozen=True, slots=True)
class Sample:
    """One request to one engine, as recorded whatever its outcome.

    ``prompt_admitted`` is the number of prompt tokens that this engine admitted while
    the request ran, its own included: without it a neighbour's long prompt looks like a
    slow engine.
    """

    engine: str
    incarnation: int
    ended_at: float
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    inflight_start: int
    inflight_end: int
    prompt_admitted: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What one worker has in flight on one engine, and how that goes.

    ``oldest_seconds`` is the age of its oldest request, ``idle_seconds`` the time since
    one last finished well (or since the engine was first seen).
    """

    inflight: int
    oldest_seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """An engine's own account of itself, of the last few seconds.

    ``waiting`` are requests that it has taken and not begun, ``kv_use`` the part of its
    KV cache in use, ``itl_seconds`` the median time between two tokens of a request, 0
    where unknown. ``tokens_at`` is when its token counter last moved by the store's
    clock, 0 where it has no such counter.
    """

    waiting: int = 0
    kv_use: float = 0.0
    itl_seconds: float = 0.0
    tokens_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Canary:
    """One small request of 64 + 32 tokens, sent only to see how long it takes.

    It was sent to an engine that was empty before, meanwhile and after. ``loaded``: the
    median of eight sent at once. ``round`` is the number by which control asked, 0
    where the launcher sent it unasked.
    """

    engine: str
    incarnation: int
    at: float
    seconds: float
    loaded: bool = False
    round: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator said about an engine or a model, ``target``.

    ``kind`` "drain": the engine gets nothing new; "pause": control keeps its hands off.
    ``until`` is when that ends by itself, 0 for never. Times are seconds of the store's
    clock.
    """

    kind: str
    target: str
    who: str = ""
    at: float = 0.0
    until: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the fleet, as the fleet file says.

    ``path`` is a folder or a Hugging Face id; ``sampling`` are parameters that every
    request gets unless it says otherwise; ``command`` is the argv of an engine of type
    ``command``. ``gpu_memory_gib`` is what each of its GPUs must have free, 0 for the
    whole GPU; with ``share_gpu`` other engines may have the rest. ``start_seconds`` 0
    means that a start may take the longer the larger the weights are. ``data_parallel``
    replicas share the GPUs; ``torch_compile`` None is the engine's own choice.
    ``image`` names a container image that the engine runs in, and ``interpreter`` then
    the python in it; ``container_args`` are more arguments of docker's or podman's run.
    ``api_key_env`` names a variable, never the key. After ``idle_seconds`` without a
    request, engines above ``min_engines`` end; ``when_down`` ("wait", "fallback",
    "fail") says what requests do that find the model down.
    """

    name: str
    kind: Kind
    path: str
    engine: str
    gpus: int = 0
    gpu_memory_gib: float = 0.0
    share_gpu: bool = False
    min_engines: int = 1
    max_engines: int = 1
    context_length: int | None = None
    data_parallel: int = 1
    torch_compile: bool | None = None
    max_running: int = 64
    start_seconds: float = 0.0
    drain_seconds: float = 60.0
    idle_seconds: float = 900.0
    extra_args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = ""
    image: str = ""
    container_args: tuple[str, ...] = ()
    engine_version: str = ""
    api_key_env: str = ""
    sampling: Mapping[str, Json] = field(default_factory=dict)
    fallback: str = ""
    when_down: str = "wait"
    down_after_seconds: float = 60.0

    @property
    def environment_name(self) -> str:
        """The engine environment that it needs: "sglang", or "sglang==0.5.22"."""
        return "==".join(filter(None, (self.engine, self.engine_version)))
