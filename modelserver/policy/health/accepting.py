"""Engines that are slow by their requests although their canaries pass. Pure.

They serve as degraded, and what they are slow by is accepted, so that a fault beyond it
is found like a first one. It is no level: it follows what is measured, to at most 1.25
times what was verified, and ends with the slowness or the incarnation. What was
verified may have given way to another fault that is no worse. So canaries are asked for
again where it takes clearly less than was accepted, where none of its requests is well
any more, and every hour.

Such an engine keeps its limit. One with heavier requests than others needs its places,
and one that is slower pulls less by itself.
"""

import math
from dataclasses import replace

from modelserver.policy.health.canaries import PASSES
from modelserver.policy.health.case import EngineCase, Transition
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.speed import SLOWER_THAN_PEERS, WELL
from modelserver.policy.health.verdicts import SpeedResidual

#: Looks over which what is accepted follows what is measured: seven minutes.
FOLLOW_LOOKS = 45
#: Ticks in a row without slowness after which it is healthy: five minutes.
WELL_TICKS = 30
#: Ticks in a row at which it is slow, but less than accepted, so that it may be slow
#: for another reason.
LESS_TICKS = 6
#: Ticks in a row at which none of its requests is well, so that it may be slow for all
#: by now: ten minutes, ...
UNWELL_TICKS = 60
#: ... and twice as long as ever before.
UNWELL_TIMES = 2
#: People are told again where it has long been twice what they were told.
NEWS = 2.0
#: Seconds until what is accepted has come down from the peak that was verified.
SETTLED_SECONDS = 1200.0
#: Seconds for which canaries that passed are trusted whatever its requests take.
TRUSTED_SECONDS = 3600.0


def accept(case: EngineCase, passed: EngineMemory) -> Transition:
    """It serves as degraded from now on, as its canaries passed again and again."""
    told = case.memory.slowdown if case.memory.slowdown >= PASSES else 0.0
    residual, reason = passed.accepted, in_words(passed.accepted)
    if passed.slow_kind:
        residual, reason = passed.residual, f"{passed.reason}; its canaries pass"
    times = math.exp(residual)
    # A kind's verdict is made of minutes; what all requests take goes up and down.
    is_news = not told or (bool(passed.slow_kind) and times > NEWS * told)
    own = replace(
        passed,
        health=Health.DEGRADED,
        residual=residual,
        slowdown=times if is_news else told,
        disproved=passed.disproved if told else (),
        slow_ticks=(),
        error_ticks=(),
        clear_ticks=0,
        less_ticks=0,
        unwell_ticks=0,
        unwell_most=_unwell_most(passed),
        reason=reason,
    )
    return Transition(own, alert=own.reason if is_news else "")


def in_words(accepted: float) -> str:
    """What is wrong with an engine whose requests take as much longer, for people."""
    return (
        f"its requests take {math.exp(accepted):.1f}x, its canaries pass: slow for "
        "some requests only, or its requests are heavier than others'"
    )


def followed(memory: EngineMemory, speed: SpeedResidual) -> EngineMemory:
    """The memory after a tick; ``speed`` is beyond what is accepted."""
    beyond = speed.residual
    measured = memory.accepted + beyond
    accepted = memory.accepted + beyond / FOLLOW_LOOKS
    well = measured < math.log(PASSES)
    less = beyond < -math.log(PASSES) and measured >= math.log(SLOWER_THAN_PEERS)
    quickest = min((log for _, log in speed.points), default=0.0) + memory.accepted
    some_well = quickest < math.log(WELL)
    return replace(
        memory,
        unwell_ticks=0 if some_well else memory.unwell_ticks + 1,
        unwell_most=max(1, _unwell_most(memory)) if some_well else memory.unwell_most,
        accepted=max(0.0, min(memory.residual + math.log(PASSES), accepted)),
        clear_ticks=memory.clear_ticks + 1 if well else 0,
        less_ticks=memory.less_ticks + 1 if less else 0,
    )


def _unwell_most(memory: EngineMemory) -> int:
    return memory.unwell_most and max(memory.unwell_most, memory.unwell_ticks)


def is_well(memory: EngineMemory) -> bool:
    """Whether it is no longer slow by its requests."""
    return memory.clear_ticks >= WELL_TICKS or memory.accepted < math.log(PASSES)


def find_news(memory: EngineMemory, now: float) -> str:
    """What people are told of an engine that has become far slower, "" for nothing."""
    is_settled = now >= memory.since + SETTLED_SECONDS
    is_news = memory.accepted > math.log(NEWS * memory.slowdown)
    return in_words(memory.accepted) if is_settled and is_news else ""


def find_doubt(memory: EngineMemory, now: float, is_one_of_many: bool = False) -> str:
    """Why its canaries are due again although nothing is beyond what is accepted.

    Of many that are slow for what they are asked, each may be asked nothing else.
    """
    is_settled = now >= max(memory.quiet_until, memory.since + SETTLED_SECONDS)
    is_less = memory.less_ticks >= LESS_TICKS and is_settled
    is_for_all = not is_one_of_many and _is_slow_for_all(memory)
    if is_for_all and now >= memory.quiet_until:
        return f"none of its requests is well any more: {in_words(memory.accepted)}"
    if not is_less and now - memory.since < TRUSTED_SECONDS:
        return ""
    return f"verified again: {in_words(memory.accepted)}"


def _is_slow_for_all(memory: EngineMemory) -> bool:
    """Whether an engine that was slow for some requests seems so for all by now."""
    usual = UNWELL_TIMES * memory.unwell_most
    return bool(usual) and memory.unwell_ticks >= max(UNWELL_TICKS, usual)
