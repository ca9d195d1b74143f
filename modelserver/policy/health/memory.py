"""What control remembers of engines from one look to the next; kept as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import orjson

from modelserver.decoding import decode
from modelserver.policy.health.cost_model import Fit, Reservoir
from modelserver.policy.health.tallies import Tallies
from modelserver.python310 import StrEnum
from modelserver.values import Cause

_T = TypeVar("_T")

#: Relaunches that a model has left at first, and at most.
RELAUNCH_TOKENS = 3.0
#: Seconds that a model is taken to be down while its last engine is relaunched, before
#: a start has been measured; rather too many, so that it is not relaunched lightly.
UNMEASURED_DOWNTIME_SECONDS = 300.0


class Health(StrEnum):
    """What control makes of an engine; ``transitions`` says what follows on what."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"  # a tick said slow; it serves until enough ticks do
    DRAINING = "draining"  # takes nothing new, finishes what it has
    VERIFY = "verify"  # empty; canaries tell whether it is slow
    RELAUNCHING = "relaunching"  # its incarnation has to go
    CHECKING = "checking"  # the next one is up; canaries tell whether that helped
    PROBATION = "probation"  # serves again, a little more every few seconds
    DEGRADED = "degraded"  # slow, and a relaunch does not help or is not allowed

    @property
    def is_held(self) -> bool:
        """Whether an engine gets no requests while control is here."""
        return self in _HELD

    @property
    def is_trusted(self) -> bool:
        """Whether others may be compared with it."""
        return self in (Health.HEALTHY, Health.PROBATION)


_HELD = (Health.DRAINING, Health.VERIFY, Health.RELAUNCHING, Health.CHECKING)


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """One engine. Times are seconds of the store's clock, 0 for never."""

    incarnation: int
    #: Its host and GPUs; in another place it is judged as a new engine.
    place: str = ""
    health: Health = Health.HEALTHY
    #: When its health was last another.
    since: float = 0.0
    #: The kind of verdict that led to its health.
    cause: Cause = Cause.NONE
    #: That verdict in words.
    reason: str = ""
    #: Why nothing has followed from it yet, in words.
    blocked: str = ""
    #: That verdict's logarithm of measured over expected seconds.
    residual: float = 0.0
    #: How many times its baseline its canaries took, or what was told to be accepted.
    slowdown: float = 1.0
    #: Whether it was found slow at each of the last ticks, newest last.
    slow_ticks: tuple[bool, ...] = ()
    #: The same of too many errors.
    error_ticks: tuple[bool, ...] = ()
    #: Ticks in a row at which it seemed well while degraded.
    clear_ticks: int = 0
    #: Ticks in a row at which it was slow, but less than accepted.
    less_ticks: int = 0
    #: Ticks in a row at which it was slow as accepted, and at all of its requests.
    unwell_ticks: int = 0
    #: The most of these after which one was well again; 0 before any was.
    unwell_most: int = 0
    #: Samples and canaries from before belong to another life and do not count.
    fresh_from: float = 0.0
    #: Samples up to here have been learned from, or left out for good.
    seen_at: float = 0.0
    #: Its own level against the fit, as a logarithm; None before it is known.
    offset: float | None = None
    #: The number of looks that the level was made from.
    offset_looks: int = 0
    #: How much longer its requests take although its canaries passed, as a logarithm;
    #: slowness beyond that is a new fault. 0 for none.
    accepted: float = 0.0
    #: How slow it seemed, beyond what was accepted, while its canaries passed of late:
    #: logarithms, the most first.
    disproved: tuple[float, ...] = ()
    #: Its mean speed against its peers of late, as a logarithm.
    usual: float = 0.0
    #: Seconds of its idle canaries when it is well; 0 before they are known.
    baseline: float = 0.0
    #: The same of its loaded canaries.
    loaded_baseline: float = 0.0
    #: When its idle canary last passed.
    canary_passed_at: float = 0.0
    #: When its processors were last seen at work for others; canaries up to then do not
    #: count against it.
    shared_at: float = 0.0
    #: The number of the last round of canaries that control asked for.
    round: int = 0
    #: Whether its requests have to run elsewhere.
    abort: bool = False
    #: Rounds of canaries that were asked for again since its start, as others used its
    #: processors.
    rechecks: int = 0
    #: Whether a relaunch did not help.
    incurable: bool = False
    #: How often its canaries passed after it was drained, of late.
    passes: int = 0
    #: When its canaries last passed after it was drained for errors.
    errors_passed_at: float = 0.0
    #: How often it was relaunched of late.
    relaunches: int = 0
    #: Until then what was verified is not acted on.
    quiet_until: float = 0.0
    #: Before then it is not relaunched.
    relaunch_from: float = 0.0
    #: When the start began that is under way; 0 for none.
    starting_since: float = 0.0
    #: Requests that it may have at once, as control regulates them; 0 for its model's.
    limit: float = 0.0
    #: What its requests of the last minutes were like.
    tallies: Tallies = field(default_factory=Tallies)
    #: Its last incarnation that was drained for a stutter, 0 for none.
    stuttered: int = 0
    #: "prompts" or "answers" where it was drained as slow for long ones, else "".
    slow_kind: str = ""

    @property
    def keeps_limit(self) -> bool:
        """Whether it is slow for some requests only, as canaries do not show."""
        return bool(self.accepted or self.slow_kind)

    def of_incarnation(self, incarnation: int, now: float) -> "EngineMemory":
        """The memory without what belonged to the incarnation before."""
        return replace(
            self,
            incarnation=incarnation,
            slow_ticks=(),
            error_ticks=(),
            clear_ticks=0,
            less_ticks=0,
            unwell_ticks=0,
            unwell_most=0,
            fresh_from=0.0,
            abort=False,
            blocked="",
            since=now,
            offset=None,
            offset_looks=0,
            usual=0.0,
            residual=self.residual + self.accepted,
            accepted=0.0,
            disproved=(),
            rechecks=0,
            errors_passed_at=0.0,
            tallies=Tallies(),
            slow_kind="",
        )


@dataclass(frozen=True, slots=True)
class TypeMemory:
    """A model on one type of GPU: what its requests should take there."""

    #: The requests that a fit is made from.
    reservoir: Reservoir = field(default_factory=Reservoir)
    fit: Fit | None = None
    #: Whether the fit is sure enough to be renewed by healthy engines only.
    frozen: bool = False
    #: When the first request was kept.
    first_at: float = 0.0
    fitted_at: float = 0.0
    #: How many requests the reservoir had been offered at the last fit.
    fitted_count: int = 0
    #: How far its engines go up and down by themselves: the standard deviation of the
    #: logarithm of their speeds.
    wander: float = 0.0
    #: The number of looks that this was learned from.
    wander_looks: int = 0
    #: Seconds of an idle canary on engines that were well; 0 before they are known.
    baseline: float = 0.0
    #: The same of a loaded canary.
    loaded_baseline: float = 0.0
    #: What of the model's settings both depend on, as a checksum.
    settings: int = 0


@dataclass(frozen=True, slots=True)
class Announced:
    """Something that people are told of when it begins."""

    #: How often they were, without a long time in between.
    times: int = 0
    #: When it was last so.
    seen_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """A model: what all its engines have in common."""

    #: The relaunches that it had left at ``counted_at``.
    tokens: float = RELAUNCH_TOKENS
    counted_at: float = 0.0
    #: Seconds that its last start took.
    load_seconds: float = UNMEASURED_DOWNTIME_SECONDS
    #: The alert in force that all its engines are slow together, "" for none.
    common: str = ""
    common_told: Announced = field(default_factory=Announced)
    #: The alert in force that its requests fail on all engines alike, "" for none.
    failing: str = ""
    #: Looks in a row that say the opposite of whether that alert is in force.
    failing_ticks: int = 0
    failing_told: Announced = field(default_factory=Announced)
    #: The alert in force that all its engines stutter, "" for none.
    stutter: str = ""
    stutter_told: Announced = field(default_factory=Announced)
    #: How much slower they are together, or seem to be, as a logarithm; 0 for not.
    common_residual: float = 0.0
    #: Looks in a row at which they seemed so by a fit that is not frozen.
    common_looks: int = 0


@dataclass(frozen=True, slots=True)
class HealthMemory:
    """All that control remembers of engines, types (by ``type_key``) and models."""

    engines: Mapping[str, EngineMemory] = field(default_factory=dict)
    types: Mapping[str, TypeMemory] = field(default_factory=dict)
    models: Mapping[str, ModelMemory] = field(default_factory=dict)
    #: When verdicts were last made.
    judged_at: float = 0.0
    #: When limits were last moved.
    limited_at: float = 0.0


def type_key(model: str, gpu: str) -> str:
    """The key of a model on a type of GPU; ``gpu`` is "" for engines without one."""
    return f"{model}@{gpu}"


def to_json(memory: HealthMemory) -> str:
    """The memory as it is stored."""
    return orjson.dumps(memory, default=dict).decode()


def from_json(text: str) -> HealthMemory:
    """The memory from its JSON; "" is an empty one, and unknown fields are ignored."""
    return decode(HealthMemory, orjson.loads(text)) if text else HealthMemory()


def find_load_seconds(text: str, model: str) -> float | None:
    """What a start of a model took, by a memory's JSON; None before one was timed."""
    models = orjson.loads(text).get("models", {}) if text else {}
    seconds = models.get(model, {}).get("load_seconds", UNMEASURED_DOWNTIME_SECONDS)
    return None if seconds == UNMEASURED_DOWNTIME_SECONDS else float(seconds)


def engine_memories(text: str) -> dict[str, EngineMemory]:
    """What a memory's JSON says of the engines; the fits, most of it, stay unread."""
    engines = orjson.loads(text).get("engines", {}) if text else {}
    return {name: decode(EngineMemory, each) for name, each in engines.items()}
