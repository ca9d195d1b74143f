"""A simulated engine with what its launcher reports and its worker knows of it."""

from collections import deque
from dataclasses import dataclass, field

from modelserver.inventory import GIB, Gpu, Host
from modelserver.measured import Canary, EngineLoad, Metrics, Sample
from modelserver.values import EngineReport, Kind, ModelSpec
from tests.scenarios.engine import KV_TOKENS, Request, SimEngine

#: The number of samples that are kept of an engine.
SAMPLES = 64
#: The number of requests that an engine's worker remembers.
RECENT_REQUESTS = 64
#: The number of canaries that are kept of an engine.
CANARIES = 12


def model(name: str = "m", engines: int = 8, max_running: int = 32) -> ModelSpec:
    """A model with one GPU for each engine."""
    return ModelSpec(
        name=name,
        kind=Kind.COMPLETION,
        path=name,
        engine="sglang",
        gpus=1,
        min_engines=engines,
        max_engines=engines,
        max_running=max_running,
    )


def host(name: str, gpus: int, gpu: str = "fast") -> Host:
    """A host with equal GPUs."""
    total = 80 * GIB
    return Host(
        name,
        gpus=tuple(
            Gpu(index, f"{name}-{index}", gpu, total=total, free=total)
            for index in range(gpus)
        ),
    )


@dataclass(slots=True)
class Slot:
    """An engine with what its launcher reports and its worker knows of it."""

    sim: SimEngine
    report: EngineReport
    limit: int
    version: int = 0
    inflight: dict[int, Request] = field(default_factory=dict)
    admitted: int = 0
    answered_at: float = 0.0
    ready_at: float = 0.0
    canary_done: int = 0
    canary_asked: int = 0
    canary_at: float = 0.0
    worker_until: float = 0.0
    held: bool = False
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    canaries: deque[Canary] = field(default_factory=lambda: deque(maxlen=CANARIES))
    #: Its last requests as its worker knows them: None for one that was answered.
    recent: deque[Request | None] = field(
        default_factory=lambda: deque(maxlen=RECENT_REQUESTS)
    )

    @property
    def works(self) -> bool:
        """Whether its worker may give it requests."""
        return self.report.serves and not self.held and not self.worker_until

    @property
    def room(self) -> int:
        """How many more requests its worker may pull for it."""
        return self.limit - len(self.inflight) if self.works else 0


def load_of(slot: Slot, now: float) -> EngineLoad:
    """What its worker reports of it."""
    began = [request.began for request in slot.inflight.values()]
    oldest = now - min(began) if began else 0.0
    return EngineLoad(len(began), oldest, now - slot.answered_at)


def metrics_of(slot: Slot, token_counter: bool) -> Metrics:
    """What the engine says of itself since it was asked last."""
    sim = slot.sim
    return Metrics(
        waiting=len(sim.waiting),
        kv_use=sim.context / KV_TOKENS,
        itl_seconds=sim.median_pace(),
        tokens_at=sim.tokens_at if token_counter else 0.0,
    )
