"""A world of engines that the real ``decide`` steers, hours in a moment.

Engines are what a launcher would report of them; a start takes ``start_seconds``, and a
wish is fulfilled at the next tick. Time is the tick's, nothing sleeps.
"""

from dataclasses import dataclass, field, replace

from modelserver.fleet.sections import RulesSection
from modelserver.inventory import Host
from modelserver.policy.actions import Action, Relaunch
from modelserver.policy.decide import apply, decide
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, EngineState, Kind, ModelSpec, Wish

#: Seconds between two looks of control, and of a launcher at its engines' tokens.
TICK_SECONDS = 2.0


@dataclass
class World:
    """Hosts, one model, and what has been decided so far."""

    engines_wanted: int
    hosts: list[Host]
    gpus: int = 0
    start_seconds: float = 30.0
    rules: RulesSection = field(default_factory=RulesSection)
    now: float = 1000.0
    engines: dict[str, EngineReport] = field(default_factory=dict)
    wishes: dict[str, Wish] = field(default_factory=dict)
    hung: set[str] = field(default_factory=set)
    decided: list[tuple[float, Action]] = field(default_factory=list)

    @property
    def spec(self) -> ModelSpec:
        """The one model."""
        return ModelSpec(
            name="m",
            kind=Kind.COMPLETION,
            path="m",
            engine="sglang",
            gpus=self.gpus,
            min_engines=self.engines_wanted,
            max_engines=self.engines_wanted,
        )

    def run(self, seconds: float) -> None:
        """Let this number of seconds pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_SECONDS
            self._live()
            self._steer()

    def _steer(self) -> None:
        snapshot = Snapshot(
            specs=(self.spec,),
            pins=(),
            hosts=tuple(self.hosts),
            engines=dict(self.engines),
            wishes=dict(self.wishes),
            loads={},
        )
        actions = decide(snapshot, self.rules, self.now)
        self.decided += [(self.now, action) for action in actions]
        for name, wish in apply(actions, self.wishes, token=1).items():
            if wish is None:
                self.wishes.pop(name, None)
            else:
                self.wishes[name] = wish

    def _live(self) -> None:
        """What launchers do: start what is wanted, relaunch, see tokens."""
        alive = {host.name for host in self.hosts}
        for name, wish in self.wishes.items():
            engine = self.engines.get(name)
            if wish.spec.host not in alive:
                continue
            if engine is None or engine.host != wish.spec.host:
                self._start(name, wish, engine.incarnation if engine else 0)
            elif wish.relaunch == engine.incarnation:
                self.hung.discard(name)
                self._start(name, wish, engine.incarnation)
        for name, engine in self.engines.items():
            self.engines[name] = self._older(engine, alive)

    def _start(self, name: str, wish: Wish, incarnation: int) -> None:
        self.engines[name] = EngineReport(
            id=name,
            model="m",
            host=wish.spec.host,
            state=EngineState.STARTING,
            incarnation=incarnation + 1,
            since=self.now,
        )

    def _older(self, engine: EngineReport, alive: set[str]) -> EngineReport:
        if engine.host not in alive:
            return engine
        starting = engine.state is EngineState.STARTING
        if starting and self.now - engine.since >= self.start_seconds:
            ready = replace(engine, state=EngineState.READY, since=self.now)
            return replace(ready, alive_at=self.now)
        if engine.serves and engine.id not in self.hung:
            return replace(engine, alive_at=self.now)
        return engine

    def relaunches(self) -> list[tuple[float, Relaunch]]:
        """When which engine was relaunched."""
        return [(at, each) for at, each in self.decided if isinstance(each, Relaunch)]

    def ready(self) -> int:
        """Engines that serve: ready, on a live host, not hanging."""
        alive = {host.name for host in self.hosts}
        return sum(
            engine.serves and engine.host in alive and engine.id not in self.hung
            for engine in self.engines.values()
        )
