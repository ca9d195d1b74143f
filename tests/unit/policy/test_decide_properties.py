"""What control never does, whatever happens to the engines."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as some

from modelserver.measured import EngineLoad, Metrics
from modelserver.policy.actions import Relaunch, Treat
from modelserver.policy.decide import consider
from modelserver.policy.health.guards import relaunch_pays
from modelserver.policy.health.memory import from_json, to_json
from modelserver.values import Cause, EngineState, Outcome
from tests.support.control import RULES, Scene, canaries, samples

EVENTS = ("well", "slow", "slow canary", "fails", "hangs", "empty", "dies", "starts")

steps = some.lists(
    some.lists(some.tuples(some.integers(0, 7), some.sampled_from(EVENTS)), max_size=4),
    min_size=1,
    max_size=25,
)


def happen(scene: Scene, engine: str, event: str) -> None:
    """One thing that may befall an engine."""
    report = scene.engines[engine]
    number = report.incarnation
    match event:
        case "well":
            scene.samples[engine] = samples(engine, now=scene.now, incarnation=number)
            scene.loads[engine] = EngineLoad(2, 1.0, 0.5)
            scene.metrics.pop(engine, None)
            scene.canaries[engine] = canaries(engine, at=scene.now, incarnation=number)
        case "slow":
            scene.samples[engine] = samples(
                engine, seconds=3.0, now=scene.now, incarnation=number
            )
        case "slow canary":
            scene.canaries[engine] = canaries(
                engine, 0.75, 0.9, at=scene.now, incarnation=number
            )
        case "fails":
            scene.samples[engine] = samples(
                engine,
                now=scene.now,
                outcome=Outcome.ENGINE_FAULT,
                incarnation=number,
            )
        case "hangs":
            scene.loads[engine] = EngineLoad(3, 500.0, 500.0)
            scene.metrics[engine] = Metrics(tokens_at=scene.now - 500)
        case "empty":
            scene.empty(engine)
        case "dies":
            scene.report(engine, state=EngineState.BACKOFF, since=scene.now)
        case "starts" if not report.serves:
            scene.report(
                engine,
                state=EngineState.READY,
                incarnation=number + 1,
                since=scene.now,
            )


def obey(scene: Scene) -> None:
    """What launchers do about wishes."""
    for name, wish in scene.wishes.items():
        report = scene.engines[name]
        if report.serves and wish.relaunch >= report.incarnation:
            scene.report(name, state=EngineState.STARTING, since=scene.now)
            scene.empty(name)


def away(scene: Scene) -> set[str]:
    """The engines that serve nobody."""
    return {
        name
        for name, wish in scene.wishes.items()
        if wish.hold
        or not scene.engines[name].serves
        or wish.relaunch >= scene.engines[name].incarnation
    }


@settings(max_examples=150, deadline=None)
@given(engines=some.integers(1, 8), story=steps)
def test_control_keeps_its_guards_whatever_happens(engines: int, story):
    scene = Scene(engines)
    names = list(scene.engines)
    for events in story:
        for place, event in events:
            happen(scene, names[place % engines], event)
        before, was = away(scene), dict(scene.engines)
        decision = scene.look()
        taken = away(scene) - before
        # Never more than the budget down.
        assert len(taken) <= max(0, max(1, engines // 4) - len(before))
        # Never the last one, but by its rule.
        if taken and len(before | taken) == engines:
            own = scene.memory.engines[min(taken)]
            load = scene.memory.models["m"].load_seconds
            assert own.cause is Cause.HUNG or relaunch_pays(load, own.residual)
        for action in decision.actions:
            if isinstance(action, Relaunch):
                assert action.incarnation == was[action.engine].incarnation
                assert was[action.engine].serves
            if isinstance(action, Treat) and action.abort:
                assert action.abort == was[action.engine].incarnation
        obey(scene)


@settings(max_examples=50, deadline=None)
@given(story=steps)
def test_control_decides_the_same_from_the_same_and_from_what_was_stored(story):
    scene = Scene(4)
    names = list(scene.engines)
    for events in story:
        for place, event in events:
            happen(scene, names[place % 4], event)
        seen = scene.snapshot()
        stored = replace(seen, memory=from_json(to_json(scene.memory)))
        now = scene.now + 10
        first = consider(seen, RULES, now)
        assert first == consider(seen, RULES, now)
        assert first == consider(stored, RULES, now)
        scene.look()
        obey(scene)


@settings(max_examples=50, deadline=None)
@given(story=steps)
def test_a_model_is_not_relaunched_more_often_than_its_tokens_allow(story):
    scene = Scene(8)
    names = list(scene.engines)
    count, began = 0, scene.now
    for events in story:
        for place, event in events:
            happen(scene, names[place % 8], event)
        count += sum(isinstance(each, Relaunch) for each in scene.look().actions)
        assert count <= 3 + (scene.now - began) / 1200
        obey(scene)
