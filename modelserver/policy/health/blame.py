"""Whether slowness is an engine's own, or that of its host or of all engines. Pure."""

import math
from collections.abc import Collection, Iterator, Mapping
from statistics import median

from modelserver.policy.health.canaries import CANARY_SECONDS, PASSES
from modelserver.policy.health.memory import EngineMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.verdicts import AnySlow, Slow, SlowCanary

#: From this share of busy processors on, 0 to 1, whatever computes on them is slow.
CROWDED = 0.9
#: From this share on a canary, which takes only a moment, meets the work of others as
#: likely as not.
SHARED = 0.5
#: Where its peers are slow too, an engine is to blame from 2 times their slowness on.
SLOWER_STILL = 2.0
#: Idle canaries of the last 90 seconds tell what peers are like now.
NOW_SECONDS = 90.0


def is_its_own(
    found: AnySlow,
    last_of_peers: Collection[float],
    host_busy: float,
    common: float = 0.0,
) -> bool:
    """Whether an engine that was found slow is to blame for that itself.

    ``last_of_peers`` has how many times its normal seconds the last idle canary of each
    peer took. ``host_busy`` is how busy the processors of its host are, 0 to 1. On
    crowded processors only a comparison with peers that have requests, too, proves that
    an engine is slow by itself. ``common`` is how slow all engines of its model are, as
    a logarithm, 0 where they are not.
    """
    is_alone = not isinstance(found, SlowCanary) and not found.peers
    if is_alone and host_busy >= CROWDED:
        return False
    peers = median(last_of_peers) if last_of_peers else 0.0
    if peers >= PASSES:
        common = max(common, math.log(peers))
    return not common or residual_of(found) >= common + math.log(SLOWER_STILL)


def residual_of(found: AnySlow) -> float:
    """How slow an engine is by a verdict, as a logarithm.

    Where its peers are faster than a young fit expects, they say how slow it is.
    """
    if isinstance(found, SlowCanary):
        return math.log(found.ratio)
    if isinstance(found, Slow):
        return found.residual - min(0.0, found.peers_residual)
    return found.residual


def last_canaries(
    observation: Observation,
    engines: Mapping[str, EngineMemory],
    observations: Mapping[str, Observation],
    now: float,
    age: float = CANARY_SECONDS,
) -> Iterator[float]:
    """How many times its normal seconds each peer's last idle canary took.

    ``age`` is the seconds within which it came.
    """
    for name, peer in observations.items():
        own = engines[name]
        if peer.spec.name != observation.spec.name or not own.health.is_trusted:
            continue
        if name == observation.report.id or not own.baseline:
            continue
        idle = [each for each in peer.own_canaries(own.fresh_from) if not each.loaded]
        if idle and now - idle[0].at <= age:
            yield idle[0].seconds / own.baseline
