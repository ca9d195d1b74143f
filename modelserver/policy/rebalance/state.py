"""What the rules see, remember and say. All values are frozen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from modelserver.decoding import decode
from modelserver.inventory import Host
from modelserver.policy.rebalance.ledger import Ledger
from modelserver.values import EngineSpec, EngineState, Json, ModelSpec, NodePlace

#: Seconds that an engine is taken to load when a move of GPUs is weighed, before a
#: start of its model has been measured.
UNMEASURED_LOAD_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class RebalanceRules:
    """When GPUs move. The figures are those that were found in simulated hours.

    T is the seconds that a move takes: the donors drain, then the engine loads.
    """

    #: Between two ticks, which measure and decide.
    tick_seconds: float = 30.0
    #: The window of the means of arrivals and capacity.
    average_seconds: float = 300.0
    #: The window of the mean of recent arrivals.
    recent_seconds: float = 60.0
    #: Ticks in a row for which a model has to be hot before it grows.
    hot_ticks: int = 3
    #: Seconds that the queue of a hot model takes to drain, at least.
    hot_drain_seconds: float = 120.0
    #: The same as a multiple of T.
    hot_drain_times: float = 2.0
    #: Seconds of all its engines' work in the queue of a hot model, at least.
    hot_work_seconds: float = 60.0
    #: The same as a multiple of T.
    hot_work_times: float = 0.5
    #: A donor's other engines may be used to at most this share of their capacity.
    donor_load: float = 0.8
    #: The seconds in which a donor's other engines have to drain its queue.
    donor_drain_seconds: float = 60.0
    #: An engine is surplus if without it the others are used to at most this share.
    surplus_load: float = 0.6
    #: Seconds without anything to do after which a model is idle.
    quiet_seconds: float = 60.0
    #: Seconds in which GPUs do not go back to the model that gave them, at first.
    reverse_seconds: float = 900.0
    #: The same after many turns: each quick one doubles them.
    most_reverse_seconds: float = 14_400.0
    #: They do go back for this multiple of the work that makes a model hot.
    reverse_times: float = 4.0
    #: Models that turned before give and get no more while moves have cost this share
    #: of all that they had waiting.
    lost_share: float = 0.05
    #: Between two growths of a model, and between two moves that donors give for.
    pause_seconds: float = 60.0
    #: At most this share of the fleet's GPUs moves at once, or one GPU.
    moving_share: float = 0.25


@dataclass(frozen=True, slots=True)
class EngineView:
    """One engine that has a wish or a report."""

    id: str
    model: str
    #: Its host, "" while it has no place on a live one.
    host: str
    state: EngineState
    #: The GPUs that it has or has been promised.
    uuids: tuple[str, ...] = ()
    #: Requests in flight on it.
    inflight: int = 0
    #: How many requests it ever finished: a counter that only grows.
    finished: float = 0.0
    #: Where its nodes from 1 on are, if it takes several hosts.
    followers: tuple[NodePlace, ...] = ()

    @property
    def places(self) -> tuple[NodePlace, ...]:
        """Where it is, by node."""
        return (NodePlace(self.host, self.uuids), *self.followers)

    @property
    def failed(self) -> bool:
        """Whether it died and does not run now."""
        return self.state in (EngineState.BACKOFF, EngineState.FATAL)


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model and its queue."""

    spec: ModelSpec
    #: Requests in its queue.
    waiting: int = 0
    #: The work of a usual request of late, in any unit that is proportional to an
    #: engine's time. None where nobody knows: then requests count as the last known.
    request_work: float | None = None
    #: How long an engine loads, where no start was measured.
    load_seconds: float = UNMEASURED_LOAD_SECONDS
    #: The work that an engine does in a second, if known before it was measured.
    capacity: float | None = None


@dataclass(frozen=True, slots=True)
class RebalanceView:
    """Everything that a decision depends on, beside memory and rules."""

    models: tuple[ModelView, ...]
    engines: tuple[EngineView, ...] = ()
    #: The live hosts.
    hosts: tuple[Host, ...] = ()
    #: The engines that the fleet file pins; they are counted and never moved.
    pins: tuple[EngineSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuMove:
    """An engine on its way: first its donors end, then it starts."""

    #: When it was decided.
    at: float
    #: The engine that is to start.
    engine: str
    model: str
    #: The host of the GPUs that it gets.
    host: str
    #: The GPUs that it gets.
    uuids: tuple[str, ...]
    #: The engines that end for it, none where its GPUs were free.
    donors: tuple[str, ...] = ()
    donor_models: tuple[str, ...] = ()
    #: How many GPUs change hands.
    gpus: int = 0
    #: When it was started, None while the donors still hold their GPUs.
    starts_at: float | None = None


@dataclass(frozen=True, slots=True)
class PastMove:
    """A move that has been decided: which model gave, and which one got."""

    at: float
    #: The model that gave GPUs, "" where they were free.
    donor: str
    #: The model that got an engine.
    taker: str


@dataclass(frozen=True, slots=True)
class Meter:
    """What is measured and remembered of one model. Rates are work per second."""

    #: The engines that it shall have, without the pinned ones.
    wanted: tuple[str, ...] = ()
    #: λ, the mean of what arrives; too small while ``observed`` is short.
    arrivals: float = 0.0
    #: The same with a window of a minute.
    recent: float = 0.0
    #: For how many seconds the model has been watched, up to a limit.
    observed: float = 0.0
    #: μ, what an engine does when it is saturated; None before that was seen.
    capacity: float | None = None
    #: What stands for μ before it is measured.
    guess: float | None = None
    #: The work of a request, None while requests are counted.
    request_work: float | None = None
    #: The requests that waited or were in flight at the last tick.
    held: float = 0.0
    #: The engines that served at the last tick, if they were saturated.
    full: tuple[str, ...] = ()
    #: For how many ticks in a row it has been hot.
    hot_ticks: int = 0
    #: Why it is not given more, without numbers; "" where it needs no more or gets it.
    refused: str = ""
    #: Since when it has had nothing to do, None while it has.
    quiet_since: float | None = None
    #: Since when it has had an engine too many, None while it has not.
    surplus_since: float | None = None
    #: How many requests its engines had finished at the last look.
    seen: float = 0.0
    #: How long an engine takes from its start to its first token, by host.
    load_seconds: Mapping[str, float] = field(default_factory=dict)
    #: How long its engines take to drain, None before one has.
    drain_seconds: float | None = None
    #: What moves of GPUs have cost it.
    ledger: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True, slots=True)
class RebalanceMemory:
    """What these rules know from one look to the next."""

    #: When the last tick was, None before the first.
    ticked_at: float | None = None
    #: What is known of each model, by its name.
    meters: Mapping[str, Meter] = field(default_factory=dict)
    #: How many requests each engine had finished at the last tick.
    finished: Mapping[str, float] = field(default_factory=dict)
    #: The moves that are not over.
    moves: tuple[GpuMove, ...] = ()
    #: The moves that were decided within the last hours.
    past: tuple[PastMove, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was decided, or was not."""

    model: str
    what: str
    #: The figures that it was decided from, by name.
    figures: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Without its figures: "a: starts a-1 ..."."""
        return f"{self.model}: {self.what}"

    @property
    def shown(self) -> dict[str, str]:
        """The figures as people read them."""
        return {
            key: f"{value:.4g}" if isinstance(value, float) else str(value)
            for key, value in self.figures.items()
        }

    def __str__(self) -> str:
        """ "a: starts a-1 ...; Q=700, G=87.5 s"."""
        figures = ", ".join(f"{key}={value}" for key, value in self.shown.items())
        return "; ".join(filter(None, (self.sentence, figures)))


@dataclass(frozen=True, slots=True)
class RebalanceOutcome:
    """What to want from now on, what to remember, and why."""

    #: All engines to have, beside the pinned ones. One with a host is to have these
    #: GPUs of that host.
    wanted: tuple[EngineSpec, ...]
    memory: RebalanceMemory
    reasons: tuple[Reason, ...] = ()
    #: The engine that will get a GPU that its donors still hold, by the GPU's UUID:
    #: no other may be placed there.
    reserved: Mapping[str, EngineSpec] = field(default_factory=dict)
    #: The engines that each model has whatever comes.
    minimums: Mapping[str, int] = field(default_factory=dict)


def to_json(memory: RebalanceMemory) -> dict[str, Json]:
    """The memory as plain values."""
    return asdict(memory)


def from_json(values: Mapping[str, Json]) -> RebalanceMemory:
    """The memory that ``to_json`` gave; what an older version left out is empty."""
    return decode(RebalanceMemory, values)
