"""Slowness that canaries disproved is not believed again so soon. Pure.

Requests that all need something at once, as where long prompts are read, make an engine
seem slow for a while. Canaries then pass. Where that happened to two engines of a
model, and to an engine beyond what is accepted of it, it takes more the next time.
"""

import math
from collections.abc import Collection, Mapping

from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.speed import WANDER_MOST

#: So many engines of a model have to have been well for it to be the requests.
FEWEST_ENGINES = 2


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


def _seen(
    own: EngineMemory,
    of_model: Collection[str],
    engines: Mapping[str, EngineMemory],
) -> float:
    if own.accepted:
        return own.disproved if own.health is Health.DEGRADED else 0.0
    # One that is slow for what it is asked, for long, says nothing of others.
    seen = [engines[name].disproved for name in of_model if not engines[name].accepted]
    return min(sorted(seen)[-FEWEST_ENGINES:]) if len(seen) >= FEWEST_ENGINES else 0.0
