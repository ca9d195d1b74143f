"""What scenarios of control have in common: fleets to begin with, and how they end."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache

from modelserver.policy.actions import Treat
from modelserver.policy.health.memory import Health
from tests.scenarios.fleet import Fleet
from tests.scenarios.slots import host, model
from tests.scenarios.traffic import Stream

#: Seconds after which a fit is frozen and levels are known.
WARM_SECONDS = 1200.0
#: Requests per second for a model with eight engines.
LOAD = 18.0
MINUTE, HOUR = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Got:
    """What came out, in a few words, and whether that is as it should be."""

    text: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario of the table: its name, what is expected, and how to run it."""

    name: str
    expected: str
    run: Callable[[int], Got]


def new_fleet(
    seed: int,
    engines: int = 8,
    load: float = LOAD,
    wander: float = 0.15,
    **more: object,
) -> Fleet:
    """Engines two to a host, one model, one stream; not warm yet."""
    hosts = [host(f"h{place}", 2) for place in range((engines + 1) // 2)]
    stream = Stream("m", load, wander=wander)
    return Fleet(hosts, (model(engines=engines),), [stream], seed, **more)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _warm_eight(seed: int) -> Fleet:
    fleet = new_fleet(seed)
    fleet.run(WARM_SECONDS)
    return fleet


def warm(seed: int, engines: int = 8, load: float = LOAD, **more: object) -> Fleet:
    """A fleet whose engines are known to control."""
    if engines == 8 and load == LOAD and not more:
        return deepcopy(_warm_eight(seed))
    fleet = new_fleet(seed, engines, load, **more)
    fleet.run(WARM_SECONDS)
    return fleet


def conclude(fleet: Fleet, text: str, ok: bool) -> Got:
    """Let it finish all its work, and add what every scenario asks for."""
    for stream in fleet.streams:
        fleet.change(stream, per_second=0.0)
    for _ in range(60):
        if not fleet.pending:
            break
        fleet.run(2 * MINUTE)
    wrong = []
    if fleet.lost() or fleet.pending:
        wrong.append(f"{fleet.lost()} lost, {fleet.pending} never ended")
    if fleet.counts["done twice"]:
        wrong.append(f"{fleet.counts['done twice']} answered twice")
    allowed = sum(max(1, each.min_engines // 4) for each in fleet.models)
    if fleet.most_down > allowed:
        wrong.append(f"{fleet.most_down} down at once")
    return Got(", ".join([text, *wrong]), ok and not wrong)


def first_drain(fleet: Fleet, began: float, engine: str) -> float:
    """Seconds until an engine was taken away, infinite if it was not."""
    return min(
        (at - began for at, name in fleet.store.drains(began) if name == engine),
        default=float("inf"),
    )


def others_touched(fleet: Fleet, began: float, *engines: str) -> int:
    """How often another engine was taken away."""
    return sum(name not in engines for _, name in fleet.store.drains(began))


def p95(fleet: Fleet, since: float, until: float) -> float:
    """The 95th percentile of the seconds from sending a request to its answer."""
    took = sorted(each for at, each in fleet.workers.took if since <= at < until)
    return took[int(0.95 * len(took))] if took else 0.0


def reasons(fleet: Fleet, began: float, engine: str) -> list[str]:
    """The first words of why an engine was taken away, each time."""
    return [
        action.reason.partition(":")[0]
        for at, action in fleet.store.log
        if isinstance(action, Treat)
        and action.engine == engine
        and action.hold.startswith(Health.DRAINING)
        and at >= began
    ]
