"""Whether slowness is an engine's own, or that of the host on which it runs. Pure."""

from collections.abc import Collection, Iterator, Mapping
from statistics import median

from modelserver.policy.health.canaries import CANARY_SECONDS, PASSES
from modelserver.policy.health.memory import EngineMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.verdicts import AnySlow, SlowCanary

#: From this share of busy processors on, 0 to 1, whatever computes on them is slow.
CROWDED = 0.9
#: From this share on a canary, which takes only a moment, meets the work of others as
#: likely as not.
SHARED = 0.5


def is_its_own(
    found: AnySlow, last_of_peers: Collection[float], host_busy: float
) -> bool:
    """Whether an engine that was found slow is to blame for that itself.

    ``last_of_peers`` has how many times its normal seconds the last idle canary of each
    peer took. ``host_busy`` is how busy the processors of its host are, 0 to 1. On
    crowded processors only a comparison with peers that have requests, too, proves that
    an engine is slow by itself.
    """
    if isinstance(found, SlowCanary):
        return not last_of_peers or median(last_of_peers) < PASSES
    return bool(found.peers) or host_busy < CROWDED


def last_canaries(
    observation: Observation,
    engines: Mapping[str, EngineMemory],
    observations: Mapping[str, Observation],
    now: float,
) -> Iterator[float]:
    """How many times its normal seconds each peer's last idle canary took."""
    for name, peer in observations.items():
        own = engines[name]
        if peer.spec.name != observation.spec.name or not own.health.is_trusted:
            continue
        if name == observation.report.id or not own.baseline:
            continue
        idle = [each for each in peer.own_canaries(own.fresh_from) if not each.loaded]
        if idle and now - idle[0].at <= CANARY_SECONDS:
            yield idle[0].seconds / own.baseline
