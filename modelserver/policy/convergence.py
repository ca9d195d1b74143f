"""Whether a fleet has become what was applied, and what is still missing. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from modelserver.inventory import Host
from modelserver.policy.changes import FleetSpec
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
    allowed = fleet.engines_allowed()
    return (
        *late,
        *(end for name in wanted for end in _missing(name, scene)),
        *(
            OpenEnd(f"{name} is still {engine.state}")
            for name, engine in scene.engines.items()
            if engine.model in models and name not in allowed and engine.host in live
        ),
    )


def _missing(name: str, scene: FleetView) -> Iterator[OpenEnd]:
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
        yield OpenEnd(f"{name} is still to be restarted: {engine.stale}")
