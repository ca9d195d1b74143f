"""What the rules see, remember and say. All values are frozen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from modelserver.decoding import decode
from modelserver.inventory import Host
from modelserver.values import EngineSpec, EngineState, Json, ModelSpec

#: Until a start has been measured, an engine is taken to load for so long.
LOAD_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class RebalanceRules:
    """When GPUs move. The figures are those that were found in simulated hours.

    A model is hot if its queue takes ``hot_drain_seconds`` or ``hot_drain_times`` T
    to drain, and ``hot_work_seconds`` or ``hot_work_times`` T of all its engines' work,
    for ``hot_ticks`` looks. T is what a move takes: drain, then load.
    """

    tick_seconds: float = 30.0
    average_seconds: float = 300.0
    recent_seconds: float = 60.0
    hot_ticks: int = 3
    hot_drain_seconds: float = 120.0
    hot_drain_times: float = 2.0
    hot_work_seconds: float = 60.0
    hot_work_times: float = 0.5
    donor_load: float = 0.8
    donor_drain_seconds: float = 60.0
    surplus_load: float = 0.6
    quiet_seconds: float = 60.0
    reverse_seconds: float = 900.0
    reverse_times: float = 4.0
    pause_seconds: float = 60.0
    moving_share: float = 0.25


@dataclass(frozen=True, slots=True)
class EngineView:
    """One engine that has a wish or a report.

    ``uuids`` are the GPUs that it has or has been promised; ``finished`` is how many
    requests it ever finished, a number that only grows.
    """

    id: str
    model: str
    host: str
    state: EngineState
    uuids: tuple[str, ...] = ()
    inflight: int = 0
    finished: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it died and does not run now."""
        return self.state in (EngineState.BACKOFF, EngineState.FATAL)


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model and its queue. ``waiting`` are requests.

    ``request_work`` is the work of a usual request of late, in any unit that is
    proportional to the time of an engine; None where nobody knows, then requests are
    counted, or taken for what they were last. ``capacity`` is what an engine should do
    in a second, if that is known before it was measured.
    """

    spec: ModelSpec
    waiting: int = 0
    request_work: float | None = None
    load_seconds: float = LOAD_SECONDS
    capacity: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a decision depends on. ``hosts`` are the live ones."""

    models: tuple[ModelView, ...]
    engines: tuple[EngineView, ...] = ()
    hosts: tuple[Host, ...] = ()
    pins: tuple[EngineSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuMove:
    """An engine on its way: first its donors end, then it starts.

    ``donors`` are the engines that end for it, none where its GPUs were free;
    ``starts_at`` is when it was started, None while the donors still hold their GPUs.
    """

    at: float
    engine: str
    model: str
    host: str
    uuids: tuple[str, ...]
    donors: tuple[str, ...] = ()
    donor_models: tuple[str, ...] = ()
    gpus: int = 0
    starts_at: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """A move that has been decided: who gave, who got."""

    at: float
    donor: str
    taker: str


@dataclass(frozen=True, slots=True)
class Meter:
    """What is remembered of one model. Rates are work per second.

    ``wanted`` are its engines without the pinned ones. ``arrivals`` is λ, ``recent``
    the same over a minute, both as sums of weights that ``observed`` seconds have
    filled; ``capacity`` is μ, measured at saturation, ``guess`` what stands for it
    before that. ``request_work`` is the work of a request, None while requests are
    counted. ``held`` are the requests that waited or were in flight at the last tick,
    ``full`` the engines that served then, if they were saturated.
    """

    wanted: tuple[str, ...] = ()
    arrivals: float = 0.0
    recent: float = 0.0
    observed: float = 0.0
    capacity: float | None = None
    guess: float | None = None
    request_work: float | None = None
    held: float = 0.0
    full: tuple[str, ...] = ()
    hot_ticks: int = 0
    quiet_since: float | None = None
    surplus_since: float | None = None
    seen: float = 0.0
    load_seconds: Mapping[str, float] = field(default_factory=dict)
    drain_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RebalanceMemory:
    """What these rules know from one look to the next.

    ``finished`` is how many requests each engine had finished at the last tick.
    """

    ticked_at: float | None = None
    meters: Mapping[str, Meter] = field(default_factory=dict)
    finished: Mapping[str, float] = field(default_factory=dict)
    moves: tuple[GpuMove, ...] = ()
    past: tuple[Past, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was decided, or was not, with the figures that it was made from."""

    model: str
    what: str
    figures: Mapping[str, float | str] = field(default_factory=dict)

    def __str__(self) -> str:
        """ "a: starts a-1 ...; Q=700, G=87.5 s"."""
        shown = (
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.figures.items()
        )
        return "; ".join(filter(None, (f"{self.model}: {self.what}", ", ".join(shown))))


@dataclass(frozen=True, slots=True)
class RebalanceOutcome:
    """What to want from now on (all engines, pins aside), to remember, and why.

    A wanted engine with a host is to have these GPUs of that host.

    ``reserved`` maps the GPUs that a move waits for to the engine that will get them:
    nothing else may be placed there.
    """

    wanted: tuple[EngineSpec, ...]
    memory: RebalanceMemory
    reasons: tuple[Reason, ...] = ()
    reserved: Mapping[str, str] = field(default_factory=dict)


def to_json(memory: RebalanceMemory) -> dict[str, Json]:
    """The memory as plain values."""
    return asdict(memory)


def from_json(values: Mapping[str, Json]) -> RebalanceMemory:
    """The memory that ``to_json`` gave; what an older version left out is empty."""
    return decode(RebalanceMemory, values)
