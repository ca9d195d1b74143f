"""Slowness that canaries disproved twice is not believed again so soon. Pure.

Requests that all need something at once, as where long prompts are read, make an engine
seem slow for a while. Canaries then pass. Where that happened to two engines of a
model, or twice beyond what is accepted of one, it takes more the next time.
"""

import math
from collections.abc import Collection, Mapping

from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.speed import WANDER_MOST

#: So often canaries have to have disproved it.
FEWEST = 2


def is_disproved(
    residual: float,
    own: EngineMemory,
    of_model: Collection[str],
    engines: Mapping[str, EngineMemory],
) -> bool:
    """Whether canaries passed of late where as much was seen.

    ``residual`` is beyond what is accepted of the engine, as a logarithm.
    """
    return residual < min(math.log(WANDER_MOST), _seen(own, of_model, engines))


def with_disproved(own: EngineMemory, residual: float) -> tuple[float, ...]:
    """What canaries have disproved of an engine, the most first, with one more."""
    seen = (*own.disproved, residual) if residual else own.disproved
    return tuple(sorted(seen, reverse=True)[:FEWEST])


def _seen(
    own: EngineMemory,
    of_model: Collection[str],
    engines: Mapping[str, EngineMemory],
) -> float:
    """As much was seen and disproved as often as it takes; 0 if it was not."""
    if own.health is Health.DEGRADED:
        seen = list(own.disproved)
    elif own.accepted:
        return 0.0  # It is quiet about what was disproved; what is beyond is new.
    else:
        # One that is slow for what it is asked, for long, says nothing of others.
        others = [engines[name] for name in of_model]
        seen = [
            max(each.disproved, default=0.0)
            for each in others
            if each.health is not Health.DEGRADED
        ]
    return sorted(seen)[-FEWEST] if len(seen) >= FEWEST else 0.0
