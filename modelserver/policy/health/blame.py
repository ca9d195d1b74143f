"""Whether slowness is an engine's own, or that of the host on which it runs. Pure."""

from collections.abc import Collection, Iterator, Mapping
from statistics import median

from modelserver.policy.health.criteria import CANARY_SECONDS
from modelserver.policy.health.learning import PASSES
from modelserver.policy.health.memory import EngineMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.verdicts import Slow, SlowCanary

#: Processors that are so busy, 0 to 1, make slow whatever computes on them.
CROWDED = 0.9
#: A canary takes a moment only: where processors are so busy over half a minute, it
#: meets somebody else's work as likely as not.
SHARED = 0.5


def is_its_own(
    found: Slow | SlowCanary, last_of_peers: Collection[float], crowd: float
) -> bool:
    """Whether an engine that was found slow is to blame for that itself.

    ``last_of_peers`` is how many times its normal seconds the last idle canary of each
    peer took. ``crowd`` is how busy the processors are that it shares with whatever
    else runs on its host. Where they are crowded only peers with as many requests can
    tell that apart.
    """
    if isinstance(found, Slow):
        return bool(found.peers) or crowd < CROWDED
    return not last_of_peers or median(last_of_peers) < PASSES


def last_canaries(
    sight: Observation,
    engines: Mapping[str, EngineMemory],
    sights: Mapping[str, Observation],
    now: float,
) -> Iterator[float]:
    """Of each peer's last idle canary, how many times its normal seconds it took."""
    for name, peer in sights.items():
        own = engines[name]
        if peer.spec.name != sight.spec.name or not own.health.is_trusted:
            continue
        if name == sight.report.id or not own.baseline:
            continue
        idle = [each for each in peer.own(own.fresh_from) if not each.loaded]
        if idle and now - idle[0].at <= CANARY_SECONDS:
            yield idle[0].seconds / own.baseline
