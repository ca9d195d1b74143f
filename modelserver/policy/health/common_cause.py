"""What slows all engines of a model together, so that none of them is to blame. Pure.

It is told by requests, and by idle canaries where an engine has no requests. By a fit
that is not frozen yet it takes more, and for longer.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from statistics import median_low

from modelserver.policy.health.blame import NOW_SECONDS
from modelserver.policy.health.canaries import (
    Engines,
    Types,
    TypicalCanaries,
    baselines,
)
from modelserver.policy.health.memory import Health, ModelMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import SLOW, find_slow_together
from modelserver.policy.health.telling import stands
from modelserver.policy.health.verdicts import SlowTogether, SpeedResidual

#: By a fit that is not frozen all are slow together from 2 times the seconds on ...
EARLY_TOGETHER = 2.0
#: ... at 4 looks in a row.
EARLY_LOOKS = 4


@dataclass(frozen=True, slots=True)
class KnownSpeed:
    """How fast an engine is by its requests, or by its idle canaries."""

    speed: SpeedResidual
    #: Whether it is known by canaries.
    idle: bool = False
    #: Whether it is known by a frozen fit, or by canaries.
    is_sure: bool = True


def known_speeds(
    observations: Mapping[str, Observation],
    engines: Engines,
    speeds: Mapping[str, SpeedResidual],
    types: Types,
    now: float,
) -> Mapping[str, list[KnownSpeed]]:
    """The speeds of each model's engines; of two signs the worse one counts."""
    found: defaultdict[str, list[KnownSpeed]] = defaultdict(list)
    typical = TypicalCanaries(engines, observations, types)
    for name, observation in observations.items():
        asked = speeds.get(name)
        idle = _by_canaries(observation, engines, typical, now)
        if idle and (asked is None or idle.residual > asked.residual):
            found[observation.spec.name].append(KnownSpeed(idle, idle=True))
        elif asked:
            sure = types[observation.type].frozen
            found[observation.spec.name].append(KnownSpeed(asked, is_sure=sure))
    return found


def _by_canaries(
    observation: Observation, engines: Engines, typical: TypicalCanaries, now: float
) -> SpeedResidual | None:
    """How fast it is by its idle canaries of now; None without any."""
    own = engines[observation.report.id]
    baseline, _ = baselines(observation, engines, typical)
    since = max(own.fresh_from, now - NOW_SECONDS)
    seconds = [
        each.seconds
        for each in observation.own_canaries(since)
        if not each.loaded and each.at > own.shared_at
    ]
    is_open = own.health.is_trusted or own.health is Health.SUSPECT
    if not seconds or not baseline or not is_open or not observation.report.serves:
        return None
    return SpeedResidual(math.log(median_low(seconds) / baseline), 0.0, len(seconds))


def find_common_cause(
    model: str, known: Collection[KnownSpeed], old: ModelMemory, now: float
) -> tuple[SlowTogether | None, ModelMemory, bool]:
    """The verdict that a model's engines are slow together, and what to remember.

    The last value is whether people are told of it now. Once told it stands until they
    are well below what it takes to tell it.
    """
    sure = [each for each in known if each.is_sure]
    verdict = _find(model, sure)
    looks, maybe = 0, 0.0
    if verdict is None and len(sure) < len(known):
        early = _find(model, known, EARLY_TOGETHER)
        looks = old.common_looks + 1 if early else 0
        maybe = early.residual if early else 0.0
        verdict = early if looks >= EARLY_LOOKS else None
    if verdict is None and old.common:
        verdict = _find(model, known, SLOW)
    if verdict is None:
        # While it may be what they share, none is blamed for as much.
        none = replace(old, common="", common_residual=maybe, common_looks=looks)
        return None, none, False
    told, is_told = stands(old.common_told, now, begins=not old.common)
    new = replace(
        old,
        common=old.common or verdict.text,
        common_residual=verdict.residual,
        common_looks=looks,
        common_told=told,
    )
    return verdict, new, is_told


def _find(
    model: str, known: Collection[KnownSpeed], *times: float
) -> SlowTogether | None:
    found = find_slow_together(model, [each.speed for each in known], *times)
    return found and replace(found, idle=sum(each.idle for each in known))
