"""What control remembers from one look to the next. Frozen; kept as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import orjson

from modelserver.decoding import decode
from modelserver.policy.health.cost_model import Fit, Reservoir
from modelserver.values import Cause

_T = TypeVar("_T")

#: Relaunches of a model that may follow each other at once.
TOKENS = 3.0
#: Seconds that a start is thought to take before one has been seen.
LOAD_SECONDS = 300.0


class Health(StrEnum):
    """Where control stands with an engine; policy/health has the moves."""

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
    """One engine. Times are seconds of the store's clock, 0 for never.

    ``cause`` is the verdict that led here,
    ``reason`` that verdict in words, ``residual`` its logarithm of measured over
    expected, ``blocked`` why nothing followed from it yet. ``slowdown`` is what
    canaries measured. ``slow_ticks`` and ``error_ticks`` are the verdicts of the last
    ticks, newest last. Samples before ``fresh_from`` belong to another life and do not
    count; those up to ``seen_at`` are in the reservoir. ``offset`` is the engine's own
    level against the fit, None before it is known, and ``offset_looks`` from how many
    looks it was made; ``usual`` is where it mostly was against its peers of late.
    ``baseline`` and ``loaded_baseline`` are the seconds of its canaries when well, 0
    before they are known; canaries up to ``shared_at`` met processors at work for
    others, and do not count against it. ``round`` numbers the canaries asked for.
    ``incurable``: a relaunch did not help.
    ``passes`` are verifications passed, ``relaunches`` those of late; until
    ``quiet_until`` slowness is not acted on, before ``relaunch_from`` it is not
    relaunched. ``limit`` is its concurrency as control regulates it, 0 for the model's.
    """

    incarnation: int
    place: str = ""
    health: Health = Health.HEALTHY
    since: float = 0.0
    cause: Cause = Cause.NONE
    reason: str = ""
    blocked: str = ""
    residual: float = 0.0
    slowdown: float = 1.0
    slow_ticks: tuple[bool, ...] = ()
    error_ticks: tuple[bool, ...] = ()
    clear_ticks: int = 0
    fresh_from: float = 0.0
    seen_at: float = 0.0
    offset: float | None = None
    offset_looks: int = 0
    usual: float = 0.0
    baseline: float = 0.0
    loaded_baseline: float = 0.0
    canary_passed_at: float = 0.0
    shared_at: float = 0.0
    round: int = 0
    abort: bool = False
    incurable: bool = False
    passes: int = 0
    relaunches: int = 0
    quiet_until: float = 0.0
    relaunch_from: float = 0.0
    starting_since: float = 0.0
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class TypeMemory:
    """A model on one type of GPU: the requests for a fit, and the fit.

    ``fitted_count`` is how many requests had been offered at the last fit. ``wander``
    is how far its engines go up and down by themselves, as a standard deviation of the
    logarithm, learned from ``wander_looks`` looks.
    """

    reservoir: Reservoir = field(default_factory=Reservoir)
    fit: Fit | None = None
    frozen: bool = False
    first_at: float = 0.0
    fitted_at: float = 0.0
    fitted_count: int = 0
    wander: float = 0.0
    wander_looks: int = 0


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """A model: relaunches that are left, when that was counted, how long a load takes.

    ``common`` is the alert that stands: all its engines are slow together.
    """

    tokens: float = TOKENS
    counted_at: float = 0.0
    load_seconds: float = LOAD_SECONDS
    common: str = ""


@dataclass(frozen=True, slots=True)
class HealthMemory:
    """All that control remembers; ``types`` by ``type_key``."""

    engines: Mapping[str, EngineMemory] = field(default_factory=dict)
    types: Mapping[str, TypeMemory] = field(default_factory=dict)
    models: Mapping[str, ModelMemory] = field(default_factory=dict)
    judged_at: float = 0.0
    limited_at: float = 0.0


def type_key(model: str, gpu: str) -> str:
    """The name of a model on a type of GPU, "" for none."""
    return f"{model}@{gpu}"


def to_json(memory: HealthMemory) -> str:
    """The memory as it is stored."""
    return orjson.dumps(memory, default=dict).decode()


def from_json(text: str) -> HealthMemory:
    """The reverse; "" is an empty memory, and unknown fields are ignored."""
    return decode(HealthMemory, orjson.loads(text)) if text else HealthMemory()
