"""One engine is verified for all that become slow with it. Pure.

Where more engines of a model are slow by their requests than may be down at once, it is
rather what they are asked than each of them. So one goes first. If its canaries pass,
the others are let off for as long as it is. From then on each is slow beyond what is
accepted only where it is twice as slow as the others of them, too.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from statistics import median

from modelserver.policy.health.blame import SLOWER_STILL, residual_of
from modelserver.policy.health.case import Findings
from modelserver.policy.health.disproved import is_disproved
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.speed import CERTAIN, SLOWER_THAN_PEERS
from modelserver.policy.health.verdicts import Slow, SpeedResidual
from modelserver.values import Cause

#: The engines of a model, what is known of all engines, and how many of the model's may
#: be down at once.
Alike = tuple[Collection[str], Mapping[str, EngineMemory], int]

#: An engine may be 1.4 times as slow as the one that is verified for it, or as much
#: slower as chance explains.
AS_SLOW = math.log(SLOWER_THAN_PEERS)
#: Canaries that passed speak for others for at most 600 seconds.
LATELY_SECONDS = 600.0


def find_verified(alike: Alike) -> str:
    """The engine that is verified for the others of its model, "" for none."""
    names, engines, most_down = alike
    away = [name for name in names if _is_verified(engines[name])]
    if not away or len(away) + len(_suspects(names, engines)) <= most_down:
        return ""
    return away[0]


def _is_verified(own: EngineMemory) -> bool:
    is_away = own.health in (Health.DRAINING, Health.VERIFY)
    return is_away and own.cause is Cause.SLOW


def _suspects(names: Collection[str], engines: Mapping[str, EngineMemory]) -> list[str]:
    return [
        name
        for name in names
        if engines[name].health is Health.SUSPECT and engines[name].cause is Cause.SLOW
    ]


def with_others(
    name: str,
    found: Findings,
    alike: Alike,
    speeds: Mapping[str, SpeedResidual],
    now: float,
) -> Findings:
    """What was found of an engine, in the light of those that are slow with it."""
    found = replace(found, is_one_of_many=_is_one_of_many(name, alike))
    slow = found.slow
    if not isinstance(slow, Slow):
        return found
    names, engines, _ = alike
    if is_disproved(residual_of(slow), engines[name], names, engines):
        return replace(found, slow=None)
    if found.is_one_of_many and _is_as_slow_as_others(name, slow, alike, speeds):
        return replace(found, slow=None)
    excused = let_off(name, slow, alike, now)
    return replace(found, verified=find_verified(alike), let_off=excused)


def _is_one_of_many(name: str, alike: Alike) -> bool:
    """Whether it is slow for what it is asked, as more are than may be down at once."""
    names, engines, most_down = alike
    known = [each for each in names if engines[each].accepted]
    return name in known and len(known) > most_down


def _is_as_slow_as_others(
    name: str, slow: Slow, alike: Alike, speeds: Mapping[str, SpeedResidual]
) -> bool:
    """Whether one of many goes up and down with the others of them."""
    names, engines, _ = alike
    measured = [
        engines[each].accepted + speeds[each].residual
        for each in names
        if each != name and engines[each].accepted and each in speeds
    ]
    if not measured:
        return False
    own = engines[name].accepted + slow.residual
    return own < median(measured) + math.log(SLOWER_STILL)


def let_off(name: str, slow: Slow, alike: Alike, now: float) -> EngineMemory | None:
    """What becomes of a slow engine if canaries of another one, as slow, passed lately.

    It is let off for as long as that one.
    """
    names, engines, most_down = alike
    own = engines[name]
    residual = own.accepted + residual_of(slow)
    others = {each: engines[each] for each in names if each != name}
    accepted = [each for each, other in others.items() if other.accepted]
    suspects = _suspects(list(others), engines)
    if 1 + len(accepted) + len(suspects) <= most_down:
        return None
    for each in accepted:
        passed = engines[each]
        lately = now - passed.fresh_from <= LATELY_SECONDS and now < passed.quiet_until
        as_slow = passed.accepted + max(AS_SLOW, CERTAIN * slow.error)
        if not lately or residual > as_slow:
            continue
        degraded = passed.health is Health.DEGRADED
        residual = max(residual, passed.accepted)
        return replace(
            own,
            health=Health.DEGRADED if degraded else Health.HEALTHY,
            since=now,
            cause=Cause.SLOW,
            reason=f"{slow.text}; canaries of {each}, which is as slow, passed",
            blocked="",
            accepted=residual,
            residual=residual,
            slowdown=math.exp(residual) if degraded else own.slowdown,
            passes=max(own.passes, passed.passes),
            quiet_until=passed.quiet_until,
            slow_ticks=(),
            clear_ticks=0,
            less_ticks=0,
            unwell_ticks=0,
            unwell_most=0,
        )
    return None
