"""Whether a fleet has become what was applied, and what is still missing. Pure."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from modelserver.inventory import Host
from modelserver.policy.changes import FleetSpec, most_down
from modelserver.values import EngineReport, EngineState, Wish


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the store says at one time."""

    hosts: tuple[Host, ...]
    engines: Mapping[str, EngineReport]
    wishes: Mapping[str, Wish]
    #: Why an engine has no place, by the engine's id.
    waiting: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenEnd:
    """Something that is not yet as applied."""

    #: What it is, in words.
    what: str
    #: Whether waiting will not change it.
    hopeless: bool = False


def open_ends(
    fleet: FleetSpec, version: int, models: Collection[str], scene: FleetView
) -> tuple[OpenEnd, ...]:
    """What is still to happen to the engines of these models."""
    live = {host.name for host in scene.hosts}
    late = (
        OpenEnd(f"host {host.name} still goes by version {host.fleet}")
        for host in scene.hosts
        if host.fleet < version
    )
    wanted = {k: v for k, v in fleet.engines().items() if v.model in models}
    allowed, stuck = fleet.engines_allowed(), _find_stuck(scene)
    return (
        *late,
        *(end for name in wanted for end in _missing(name, scene, stuck)),
        *(
            OpenEnd(f"{name} is still {engine.state}")
            for name, engine in scene.engines.items()
            if engine.model in models and name not in allowed and engine.host in live
        ),
    )


def _find_stuck(scene: FleetView) -> set[str]:
    """Models of which as many engines have failed for good as may be away at once."""
    wanted, failed = Counter[str](), Counter[str]()
    for name, wish in scene.wishes.items():
        wanted[wish.spec.model] += 1
        engine = scene.engines.get(name)
        if engine and engine.state is EngineState.FATAL and not engine.stale:
            # Unless it is to be tried again.
            failed[wish.spec.model] += wish.relaunch < engine.incarnation
    return {model for model, many in failed.items() if many >= most_down(wanted[model])}


def _missing(name: str, scene: FleetView, stuck: Collection[str]) -> Iterator[OpenEnd]:
    wish, engine = scene.wishes.get(name), scene.engines.get(name)
    if wish is None:
        why = scene.waiting.get(name)
        yield OpenEnd(f"{name} has no place yet" + (f": {why}" if why else ""))
    elif engine is None or engine.host != wish.spec.host:
        yield OpenEnd(f"{name} has not been taken up by host {wish.spec.host} yet")
    elif not engine.serves:
        why = f": {engine.reason}" if engine.reason else ""
        is_fatal = engine.state is EngineState.FATAL
        yield OpenEnd(f"{name} is {engine.state}{why}", is_fatal)
    elif engine.stale:
        told = f"{name} is still to be restarted: {engine.stale}"
        # Its turn comes when others are back.
        yield OpenEnd(told, hopeless=engine.model in stuck)
