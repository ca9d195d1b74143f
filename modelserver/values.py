"""The values that everything else passes around. All of them are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelserver.adapters import LoraAdapter
from modelserver.python310 import StrEnum
from modelserver.schedules import ScheduledWindow

Json = Any

#: The type of an engine that somebody else runs: it exists only where ``[[engines]]``
#: names its URL, and nothing of it can be started or ended.
EXTERNAL = "external"


class Kind(StrEnum):
    """What a model is asked for."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"


class EngineState(StrEnum):
    """Where an engine stands in its life; policy/lifecycle has the moves."""

    #: Wanted and not started; the report's reason says why.
    PENDING = "PENDING"
    #: Its process runs, and no token has come back yet.
    STARTING = "STARTING"
    #: A token came back.
    READY = "READY"
    #: Serves as READY does, with a limit that control thinks it can bear.
    DEGRADED = "DEGRADED"
    #: Takes nothing new and finishes what it has.
    DRAINING = "DRAINING"
    #: Ended because somebody wanted it to.
    STOPPED = "STOPPED"
    #: Died or never got ready; waits to be started again.
    BACKOFF = "BACKOFF"
    #: Starting it again will not heal it.
    FATAL = "FATAL"
    #: What a newer modelserver says and this one does not know.
    UNKNOWN = "UNKNOWN"

    @classmethod
    def _missing_(cls, value: object) -> "EngineState":
        return cls.UNKNOWN

    @property
    def serves(self) -> bool:
        """Whether an engine in this state takes requests."""
        return self in (EngineState.READY, EngineState.DEGRADED)


class Outcome(StrEnum):
    """How one request to an engine ended."""

    OK = "ok"
    #: The engine failed; another one may answer.
    ENGINE_FAULT = "engine-fault"
    #: The request itself is wrong.
    REQUEST_FAULT = "request-fault"
    #: It failed as it had before, which says no more of the engine: the request itself
    #: may be the cause.
    REPEATED = "repeated"
    CANCELLED = "cancelled"
    #: Not an attempt: takes back one ENGINE_FAULT of the same incarnation, since that
    #: request proved to be at fault itself.
    WITHDRAWN = "withdrawn"

    @property
    def says_something(self) -> bool:
        """Whether it tells how the engine does."""
        return self in (Outcome.OK, Outcome.ENGINE_FAULT, Outcome.REQUEST_FAULT)

    @property
    def is_attempt(self) -> bool:
        """Whether the engine had a request."""
        return self is not Outcome.WITHDRAWN


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
    #: An operator asked for it.
    ASKED = "asked"
    #: Its section of the fleet file, or its place, has changed.
    CHANGED = "changed"
    #: It is wanted no longer, or its launcher ends.
    RELEASED = "released"
    #: Its requests take longer than they should.
    SLOW = "slow"
    #: Its canaries take longer than they should.
    SLOW_CANARIES = "canary"
    #: It fails too many requests.
    ERRORS = "error"
    #: It answers nothing any more.
    HUNG = "hang"

    @classmethod
    def _missing_(cls, value: object) -> "Cause":
        # What a newer control knows more of is ended as anything else is.
        return cls.NONE

    @property
    def is_fault(self) -> bool:
        """Whether the engine is at fault, so that an incident is worth keeping."""
        return self in _FAULTS


_FAULTS = frozenset({Cause.SLOW, Cause.SLOW_CANARIES, Cause.ERRORS, Cause.HUNG})
#: Requests that an engine may have at once where neither its model nor the engine says.
DEFAULT_RUNNING = 64


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node of an engine runs: the processes that it has on one host."""

    host: str
    #: The GPUs that placement chose, none where the engine needs none.
    uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine that the fleet wants: which model, on which host, in what way."""

    id: str
    model: str
    #: Its host, "" for any.
    host: str
    #: The indexes of its GPUs on that host, as the fleet file pins them.
    gpus: tuple[int, ...] = ()
    #: Its port, 0 for a free one that the launcher chooses.
    port: int = 0
    #: Where it listens, if somebody else runs it.
    url: str = ""
    #: The GPUs that placement chose, none where the engine needs none.
    uuids: tuple[str, ...] = ()
    #: More arguments of this engine, after its model's.
    extra_args: tuple[str, ...] = ()
    #: More variables of this engine, over its model's.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Where its nodes from 1 on run, if it takes several hosts; ``host`` has node 0,
    #: which leads them and is asked.
    followers: tuple[NodePlace, ...] = ()

    @property
    def places(self) -> tuple[NodePlace, ...]:
        """Where it runs, by node: one place for each of its hosts."""
        return (NodePlace(self.host, self.uuids), *self.followers)

    def of_node(self, node: int) -> "EngineSpec":
        """The same as its host is to start one node of it."""
        port = 0 if node else self.port
        return replace(self, port=port, uuids=self.places[node].uuids)


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
    #: How many requests it may have at once; 0 for as many as its model lets it have,
    #: which it never exceeds.
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
    #: The host that it was taken from on purpose, "" where it was not.
    left: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What the launcher of its host reports of one node from 1 on."""

    engine: str
    node: int
    host: str
    #: PENDING while it waits, STARTING from its call on, READY once its engine serves,
    #: DRAINING if its launcher is to end; BACKOFF or FATAL if it ended by itself.
    state: EngineState
    #: The last incarnation of its engine that it took part in, 0 for none.
    incarnation: int = 0
    pid: int = 0
    #: The GPUs that it has, or is to have.
    uuids: tuple[str, ...] = ()
    #: The indexes of those that it has.
    gpus: tuple[int, ...] = ()
    #: Why it is in this state, or what it does; "" for a PENDING one that can start.
    reason: str = ""
    #: The path of its log on its host.
    log: str = ""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """A launcher's report of one engine. Times are seconds of the store's clock."""

    id: str
    model: str
    host: str
    state: EngineState
    #: Counts the starts of this engine, for ever upwards; 0 before the first.
    incarnation: int = 0
    #: Where it listens.
    url: str = ""
    #: Its process, 0 without one.
    pid: int = 0
    #: How many requests it may have at once.
    limit: int = 0
    #: The indexes of its GPUs.
    gpus: tuple[int, ...] = ()
    #: Why it is in this state, for people.
    reason: str = ""
    #: Since when it is in this state.
    since: float = 0.0
    #: When it last proved itself by a token, 0 before the first.
    alive_at: float = 0.0
    #: How often this launcher has started it.
    starts: int = 0
    #: The last incarnation that ended by itself while it served, 0 if none has.
    died: int = 0
    #: The GPUs on which it died twice at its start, of what others may not have.
    failed_on: tuple[str, ...] = ()
    #: The path of its log on its host.
    log: str = ""
    #: What a starting engine does, by its log.
    progress: str = ""
    #: How long it has had requests and given no token, 0 while it is well.
    hung_seconds: int = 0
    #: What changed in the fleet since it was started, if that needs a restart.
    stale: str = ""
    #: Why it gets nothing new although it serves, "" where it does.
    hold: str = ""
    #: How many token ids its model knows, 0 where that is unknown.
    vocabulary: int = 0
    #: The incarnation whose requests its workers have to run elsewhere.
    abort: int = 0
    #: How many requests it takes at once by its own account, 0 where its model says.
    capacity: int = 0
    #: Its nodes on other hosts.
    followers: tuple[NodeReport, ...] = ()
    #: The port at which its nodes meet, 0 where it has no others.
    meeting_port: int = 0

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
class Order:
    """What an operator said. Times are seconds of the store's clock."""

    #: "drain", "pause", "drain-host" or "move", as ``policy.orders`` explains them.
    kind: str
    #: The engine, the model or the host that it is about.
    target: str
    #: The operator's login.
    who: str = ""
    at: float = 0.0
    #: When it ends by itself, 0 for never.
    until: float = 0.0
    reason: str = ""
    #: Where a moved engine is to be.
    host: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the fleet, as the fleet file says."""

    name: str
    kind: Kind
    #: A folder or a Hugging Face id.
    path: str
    #: The type of its engines.
    engine: str
    #: How many GPUs each engine needs.
    gpus: int = 0
    #: How many hosts each engine takes, with the same number of its GPUs on each.
    nodes: int = 1
    #: GiB that an engine takes of each of its GPUs, 0 for a whole GPU.
    gpu_memory_gib: float = 0.0
    #: Whether other engines may have the rest of its GPUs.
    share_gpu: bool = False
    #: GiB that each of its GPUs has in all, at least; 0 for any.
    min_gpu_gib: float = 0.0
    #: A part of the name of its GPUs, "" for any.
    gpu_name: str = ""
    #: The hosts that may run its engines, none for any.
    hosts: tuple[str, ...] = ()
    #: How many engines there are at least.
    min_engines: int = 1
    #: How many there are at most.
    max_engines: int = 1
    #: Models with a higher one get GPUs before others. No request's priority.
    priority: int = 0
    #: When there are more engines at least, by the clock.
    schedule: tuple[ScheduledWindow, ...] = ()
    #: Tokens of prompt and answer together, None for the engine's own choice.
    context_length: int | None = None
    #: How many replicas share the engine's GPUs.
    data_parallel: int = 1
    #: Whether the engine compiles the model, None for its own choice.
    torch_compile: bool | None = None
    #: How many requests an engine may have at once, 0 for what the engine itself takes.
    max_running: int = DEFAULT_RUNNING
    #: Seconds between two tokens to aim at, by fewer requests at once; 0 for any.
    itl_seconds: float = 0.0
    #: The seconds that a start may take, 0 for more the larger the weights are.
    start_seconds: float = 0.0
    #: Whether engines of one host that load its files do so one after another.
    load_in_turns: bool = False
    #: The seconds that an engine has to finish its requests before it is ended.
    drain_seconds: float = 60.0
    #: Seconds without a request after which engines above ``min_engines`` end.
    idle_seconds: float = 900.0
    #: LoRA adapters that its engines answer for as well.
    adapters: tuple[LoraAdapter, ...] = ()
    extra_args: tuple[str, ...] = ()
    #: The argv of an engine of type "command".
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The python that runs the engine, "" for that of its environment or image.
    interpreter: str = ""
    #: The container image that the engine runs in, "" for none.
    image: str = ""
    #: More arguments of docker's or podman's run.
    container_args: tuple[str, ...] = ()
    #: The version of its environment, "" for that installed by the engine's name alone.
    engine_version: str = ""
    #: The variable that holds the key of the engine, never the key.
    api_key_env: str = ""
    #: Parameters that every request gets unless it says otherwise.
    sampling: Mapping[str, Json] = field(default_factory=dict)
    #: Most tokens of ``complete`` if the caller does not say; 0: the engine's choice.
    default_max_tokens: int = 0
    #: The model that answers instead while this one is down, if ``when_down`` says so.
    fallback: str = ""
    #: What requests do that find the model down: "wait", "fallback" or "fail".
    when_down: str = "wait"
    #: Seconds without a ready engine after which the model counts as down.
    down_after_seconds: float = 60.0

    @property
    def environment_name(self) -> str:
        """The engine environment that it needs: "sglang", or "sglang==0.5.22"."""
        return "==".join(filter(None, (self.engine, self.engine_version)))
