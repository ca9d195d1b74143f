"""The values that everything else passes around. All of them are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelserver.inventory import Host

Json = Any


class Kind(StrEnum):
    """What a model is asked for."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"


class EngineState(StrEnum):
    """Where an engine stands in its life; the table of moves is policy/lifecycle."""

    PENDING = "PENDING"  # wanted, not started; the report's reason says why
    STARTING = "STARTING"  # its process runs, no token has come back yet
    READY = "READY"  # a token came back
    DRAINING = "DRAINING"  # takes nothing new, finishes what it has
    STOPPED = "STOPPED"  # ended because somebody wanted it
    BACKOFF = "BACKOFF"  # died or never got ready; waits to be started again
    FATAL = "FATAL"  # will not heal by starting it again


class Outcome(StrEnum):
    """How one request to an engine ended."""

    OK = "ok"
    ENGINE_FAULT = "engine-fault"
    REQUEST_FAULT = "request-fault"
    CANCELLED = "cancelled"


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
class Desired:
    """What control wants of one engine; level-triggered, so losing one only delays.

    ``relaunch`` names the incarnation that must go. Once the engine has a later one the
    wish is fulfilled, so a stale wish does nothing. ``token`` is the fencing token of
    the controller that wrote it.
    """

    spec: EngineSpec
    relaunch: int = 0
    reason: str = ""
    token: int = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """What a launcher reports about one engine. Times are seconds of the store's clock.

    ``incarnation`` counts the starts of this engine, for ever upwards. ``alive_at`` is
    when it last proved itself by a token; 0 before the first. ``died`` is the last
    incarnation that ended by itself while it served, 0 if none has.
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
class Snapshot:
    """Everything that a decision may depend on, read at one time.

    ``loads`` maps an engine's id to the sum over the live workers; ``hosts`` holds the
    live ones only.
    """

    specs: tuple["ModelSpec", ...]
    pins: tuple[EngineSpec, ...]
    hosts: tuple[Host, ...]
    engines: Mapping[str, Engine]
    desired: Mapping[str, Desired]
    loads: Mapping[str, EngineLoad]


@dataclass(frozen=True, slots=True)
class Want:
    """Action: have this engine, in this way."""

    spec: EngineSpec


@dataclass(frozen=True, slots=True)
class Relaunch:
    """Action: end this incarnation of an engine and start the next."""

    engine: str
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Action: have this engine no longer."""

    engine: str
    reason: str


Action = Want | Relaunch | Drop


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the fleet, as the fleet file says.

    ``path`` is a folder or a Hugging Face id; ``sampling`` are parameters that every
    request gets unless it says otherwise; ``command`` is the argv of an engine of type
    ``command``. ``gpu_memory_gib`` is what each of its GPUs must have free, 0 for the
    whole GPU; with ``share_gpu`` other engines may have the rest.
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
    max_running: int = 64
    start_seconds: float = 600.0
    drain_seconds: float = 60.0
    extra_args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = ""
    sampling: Mapping[str, Json] = field(default_factory=dict)
    fallback: str = ""
