"""What a decision is made from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelserver.inventory import Host
from modelserver.policy.health.memory import HealthMemory
from modelserver.policy.rebalance.state import RebalanceMemory
from modelserver.values import (
    Canary,
    EngineLoad,
    EngineReport,
    EngineSpec,
    Metrics,
    ModelSpec,
    Order,
    Sample,
    Wish,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision may depend on, read at one time.

    ``loads`` maps an engine's id to the sum over the live workers; ``hosts`` holds the
    live ones only. ``samples`` and ``canaries`` are each engine's last, newest first.
    Without ``memory``, slowness is not judged.
    ``queues`` are the requests that wait by model, ``finished`` those that each engine
    ever answered. Without ``moves``, models have their ``min_engines``, whatever waits.
    """

    specs: tuple[ModelSpec, ...]
    pins: tuple[EngineSpec, ...]
    hosts: tuple[Host, ...]
    engines: Mapping[str, EngineReport]
    wishes: Mapping[str, Wish]
    loads: Mapping[str, EngineLoad]
    samples: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    metrics: Mapping[str, Metrics] = field(default_factory=dict)
    canaries: Mapping[str, tuple[Canary, ...]] = field(default_factory=dict)
    memory: HealthMemory | None = None
    orders: tuple[Order, ...] = ()
    queues: Mapping[str, int] = field(default_factory=dict)
    finished: Mapping[str, int] = field(default_factory=dict)
    moves: RebalanceMemory | None = None
