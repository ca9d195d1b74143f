"""Engines as control sees them, for tests of its decisions."""

from dataclasses import replace
from typing import Any

from modelserver.fleet.sections import RulesSection
from modelserver.inventory import Host
from modelserver.measured import Canary, EngineLoad, Metrics, Sample
from modelserver.policy.actions import Alert, Relaunch
from modelserver.policy.decide import Decision, apply, consider
from modelserver.policy.health.cost_model import Fit
from modelserver.policy.health.learning import LEVEL_LOOKS
from modelserver.policy.health.memory import (
    EngineMemory,
    Health,
    HealthMemory,
    ModelMemory,
    TypeMemory,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Outcome,
    Wish,
)
from tests.support.processes import gpus

NOW = 10_000.0
RULES = RulesSection()
#: A hundred completion tokens take a second.
FIT = Fit((0.0, 0.0, 0.01, 0.0, 0.0), 0.05, 1000)


def sample(
    engine: str = "m-0",
    age: float = 1.0,
    seconds: float = 1.0,
    outcome: Outcome = Outcome.OK,
    incarnation: int = 1,
    now: float = NOW,
) -> Sample:
    """A request of 100 + 100 tokens, which should take a second."""
    return Sample(engine, incarnation, now - age, seconds, 100, 100, 2, 2, 100, outcome)


def samples(
    engine: str = "m-0",
    number: int = 40,
    seconds: float = 1.0,
    now: float = NOW,
    **more: Any,
) -> tuple[Sample, ...]:
    """Requests that ended one a second, newest first."""
    return tuple(
        sample(engine, age=place, seconds=seconds, now=now, **more)
        for place in range(number)
    )


def canaries(
    engine: str = "m-0",
    idle: float = 0.25,
    loaded: float = 0.3,
    at: float = NOW,
    incarnation: int = 1,
) -> tuple[Canary, ...]:
    """A round of canaries."""
    return (
        Canary(engine, incarnation, at, loaded, loaded=True),
        *(Canary(engine, incarnation, at, idle) for _ in range(3)),
    )


def known(**values: Any) -> EngineMemory:
    """An engine that control knows well."""
    usual = {
        "incarnation": 1,
        "place": "a",
        "since": NOW - 5000,
        "offset": 0.0,
        "offset_looks": LEVEL_LOOKS,
        "baseline": 0.25,
        "loaded_baseline": 0.3,
        "canary_passed_at": NOW - 100,
    }
    return EngineMemory(**usual | values)


class Scene:
    """Some engines of one model on one host, changed and looked at step by step."""

    def __init__(self, engines: int = 4, **memory: Any) -> None:
        self.now = NOW
        names = [f"m-{place}" for place in range(engines)]
        self.spec = ModelSpec(
            "m",
            Kind.COMPLETION,
            "/m",
            "sglang",
            min_engines=engines,
            max_engines=engines,
            max_running=32,
        )
        self.hosts: tuple[Host, ...] = (Host("a"),)
        self.pins: tuple[EngineSpec, ...] = ()
        self.engines = {
            name: EngineReport(
                name, "m", "a", EngineState.READY, 1, since=1000.0, alive_at=NOW
            )
            for name in names
        }
        self.wishes = {name: Wish(EngineSpec(name, "m", "a")) for name in names}
        self.samples = {name: samples(name) for name in names}
        self.canaries: dict[str, tuple[Canary, ...]] = {}
        self.loads = {name: EngineLoad(2, 1.0, 0.5) for name in names}
        self.metrics: dict[str, Any] = {}
        self.memory = HealthMemory(
            engines={name: known() for name in names},
            types={"m@": TypeMemory(fit=FIT, frozen=True, fitted_at=NOW)},
            models={"m": ModelMemory(counted_at=NOW, load_seconds=60.0)},
        )
        if memory:
            self.remember("m-0", **memory)

    def remember(self, engine: str, **values: Any) -> None:
        """Change what control remembers of an engine."""
        own = replace(self.memory.engines[engine], **values)
        self.memory = replace(self.memory, engines={**self.memory.engines, engine: own})

    def report(self, engine: str, **values: Any) -> None:
        """Change what the launcher says of an engine."""
        self.engines[engine] = replace(self.engines[engine], **values)

    def give_gpus(self) -> None:
        """Each engine computes on a GPU of its own."""
        self.hosts = (Host("a", gpus(len(self.engines))),)
        places = {name: f"GPU-{place}" for place, name in enumerate(self.engines)}
        for name, uuid in places.items():
            spec = EngineSpec(name, "m", "a", uuids=(uuid,))
            self.wishes[name] = replace(self.wishes[name], spec=spec)
            self.remember(name, place=f"a/{uuid}")
        self.spec = replace(self.spec, gpus=1)
        self.memory = replace(self.memory, types={"m@test": self.memory.types["m@"]})

    def empty(self, engine: str = "m-0") -> None:
        """It has no requests any longer."""
        self.loads[engine] = EngineLoad(0, 0.0, 5.0)

    def slow(self, engine: str = "m-0", times: float = 3.0) -> None:
        """Its requests take longer than they should, by this factor."""
        self.samples[engine] = samples(engine, seconds=times, now=self.now)

    def snapshot(self) -> Snapshot:
        """What control reads."""
        return Snapshot(
            specs=(self.spec,),
            pins=self.pins,
            hosts=self.hosts,
            engines=dict(self.engines),
            wishes=dict(self.wishes),
            loads=dict(self.loads),
            samples=dict(self.samples),
            metrics=dict(self.metrics),
            canaries=dict(self.canaries),
            memory=self.memory,
        )

    def look(self, after: float = 10.0) -> Decision:
        """Let time pass, decide, and keep what was decided."""
        self.now += after
        for name, engine in self.engines.items():
            self.engines[name] = replace(engine, alive_at=self.now)
            self.samples[name] = tuple(
                replace(each, ended_at=each.ended_at + after)
                for each in self.samples[name]
            )
        decision = consider(self.snapshot(), RULES, self.now)
        for name, wish in apply(decision.actions, self.wishes, 1).items():
            assert wish is not None
            self.wishes[name] = wish
        self.memory = decision.memory
        return decision

    def looks(self, number: int) -> list[Decision]:
        """Several of them."""
        return [self.look() for _ in range(number)]

    @property
    def own(self) -> EngineMemory:
        """What control remembers of the first engine."""
        return self.memory.engines["m-0"]


def relaunches(decision: Decision) -> list[str]:
    """The engines that a decision relaunches."""
    return [each.engine for each in decision.actions if isinstance(each, Relaunch)]


def alerts(decision: Decision) -> list[str]:
    """What a decision tells people."""
    return [each.reason for each in decision.actions if isinstance(each, Alert)]


def drained(**memory: Any) -> Scene:
    """A scene whose first engine is slow and has just been taken away."""
    scene = Scene(**memory)
    scene.slow()
    scene.looks(3)
    assert scene.own.health is Health.DRAINING
    return scene


def verifying() -> Scene:
    """A scene whose first engine was slow, is empty, and was asked for canaries."""
    scene = drained()
    scene.empty()
    scene.look()
    assert scene.own.health is Health.VERIFY
    return scene


def relaunching() -> Scene:
    """A scene whose first engine failed at its canaries."""
    scene = verifying()
    scene.canaries["m-0"] = canaries(idle=0.75, loaded=0.9, at=scene.now)
    assert relaunches(scene.look()) == ["m-0"]
    return scene


def second_incarnation(idle: float = 0.25, loaded: float = 0.3) -> Scene:
    """A scene whose first engine was relaunched, with the seconds of its canaries."""
    scene = relaunching()
    scene.report("m-0", state=EngineState.STARTING, since=scene.now)
    scene.look()
    scene.samples["m-0"] = ()
    scene.report("m-0", state=EngineState.READY, incarnation=2, since=scene.now + 5)
    scene.canaries["m-0"] = canaries(
        idle=idle, loaded=loaded, at=scene.now, incarnation=2
    )
    scene.look()
    assert scene.own.health is Health.CHECKING
    return scene


def degraded(engines: int = 4, **memory: Any) -> Scene:
    """A scene whose first engine serves as degraded."""
    usual = {"health": Health.DEGRADED, "slowdown": 2.0, "reason": "slow: yes"}
    return Scene(engines, **usual | memory)


def failing(engines: int = 4, **memory: Any) -> Scene:
    """A scene whose first engine fails at many of its requests."""
    scene = Scene(engines, **memory)
    outcomes = [Outcome.ENGINE_FAULT] * 3 + [Outcome.OK] * 5
    scene.samples["m-0"] = tuple(
        sample(age=place, outcome=outcomes[place % 8]) for place in range(40)
    )
    return scene


def hanging(engines: int = 4, **memory: Any) -> Scene:
    """A scene whose first engine has given no token for 40 seconds."""
    scene = Scene(engines, **memory)
    scene.loads["m-0"] = EngineLoad(5, 100.0, 100.0)
    scene.metrics["m-0"] = Metrics(tokens_at=scene.now - 40)
    return scene
