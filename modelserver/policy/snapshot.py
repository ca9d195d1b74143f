"""What a decision is made from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelserver.inventory import Host
from modelserver.measured import Canary, EngineLoad, Metrics, Sample
from modelserver.policy.health.memory import HealthMemory
from modelserver.policy.rebalance.state import RebalanceMemory
from modelserver.values import EngineReport, EngineSpec, ModelSpec, Order, Wish


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision may depend on, read at one time."""

    specs: tuple[ModelSpec, ...]
    pins: tuple[EngineSpec, ...]
    #: The live hosts.
    hosts: tuple[Host, ...]
    #: What launchers report, by engine.
    engines: Mapping[str, EngineReport]
    wishes: Mapping[str, Wish]
    #: What engines have in flight, by engine: the sum over the live workers.
    loads: Mapping[str, EngineLoad]
    #: The hosts with a worker; none where no worker reports, so that nothing is known.
    worker_hosts: tuple[str, ...] = ()
    #: Each engine's last requests, newest first.
    samples: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    metrics: Mapping[str, Metrics] = field(default_factory=dict)
    #: Each engine's last canaries, newest first.
    canaries: Mapping[str, tuple[Canary, ...]] = field(default_factory=dict)
    #: What control remembers of the engines' health; without it slowness is not judged.
    memory: HealthMemory | None = None
    #: Why an engine keeps its place though its host is silent, by engine.
    away: Mapping[str, str] = field(default_factory=dict)
    #: The engines that serve on a host that was given up and reports again.
    returned: tuple[str, ...] = ()
    orders: tuple[Order, ...] = ()
    #: By whom and why a host is drained, by host.
    drained_hosts: Mapping[str, str] = field(default_factory=dict)
    #: The hosts that operators have moved engines to, by engine.
    moved: Mapping[str, str] = field(default_factory=dict)
    #: The number of waiting requests, by model.
    queues: Mapping[str, int] = field(default_factory=dict)
    #: The number of requests that each engine ever answered.
    finished: Mapping[str, int] = field(default_factory=dict)
    #: What control remembers of moved GPUs; without it models have their
    #: ``min_engines``, however many requests wait.
    moves: RebalanceMemory | None = None

    @property
    def open_hosts(self) -> tuple[Host, ...]:
        """The live hosts that may get engines."""
        return tuple(each for each in self.hosts if each.name not in self.drained_hosts)

    def has_worker(self, host: str) -> bool:
        """Whether requests can reach the engines of a host, as far as is known."""
        return not self.worker_hosts or host in self.worker_hosts
