"""Engines that are slow by their requests although their canaries pass. Pure.

They serve as degraded, and what they are slow by is accepted, so that a fault beyond it
is found like a first one. It is no level: it follows what is measured, to at most 1.25
times what was verified, and ends with the slowness or the incarnation. What was
verified may have given way to another fault that is no worse. So canaries are asked for
again where it takes clearly less than was accepted, and every hour.

Such an engine keeps its limit. One with heavier requests than others needs its places,
and one that is slower pulls less by itself.
"""

import math
from dataclasses import replace

from modelserver.policy.health.canaries import PASSES
from modelserver.policy.health.case import EngineCase, Transition
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.speed import SLOWER_THAN_PEERS

#: Looks over which what is accepted follows what is measured: seven minutes.
FOLLOW_LOOKS = 45
#: Ticks in a row without slowness after which it is healthy: five minutes.
WELL_TICKS = 30
#: Ticks in a row at which it is slow, but less than accepted, so that it may be slow
#: for another reason.
LESS_TICKS = 6
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
        slow_ticks=(),
        error_ticks=(),
        clear_ticks=0,
        less_ticks=0,
        reason=reason,
    )
    return Transition(own, alert=own.reason if is_news else "")


def in_words(accepted: float) -> str:
    """What is wrong with an engine whose requests take as much longer, for people."""
    return (
        f"its requests take {math.exp(accepted):.1f}x, its canaries pass: slow for "
        "some requests only, or its requests are heavier than others'"
    )


def followed(memory: EngineMemory, beyond: float) -> EngineMemory:
    """The memory after a tick at which requests took ``beyond`` what is accepted."""
    measured = memory.accepted + beyond
    accepted = memory.accepted + beyond / FOLLOW_LOOKS
    well = measured < math.log(PASSES)
    less = beyond < -math.log(PASSES) and measured >= math.log(SLOWER_THAN_PEERS)
    return replace(
        memory,
        accepted=max(0.0, min(memory.residual + math.log(PASSES), accepted)),
        clear_ticks=memory.clear_ticks + 1 if well else 0,
        less_ticks=memory.less_ticks + 1 if less else 0,
    )


def is_well(memory: EngineMemory) -> bool:
    """Whether it is no longer slow by its requests."""
    return memory.clear_ticks >= WELL_TICKS or memory.accepted < math.log(PASSES)


def find_news(memory: EngineMemory, now: float) -> str:
    """What people are told of an engine that has become far slower, "" for nothing."""
    is_settled = now >= memory.since + SETTLED_SECONDS
    is_news = memory.accepted > math.log(NEWS * memory.slowdown)
    return in_words(memory.accepted) if is_settled and is_news else ""


def find_doubt(memory: EngineMemory, now: float) -> str:
    """Why its canaries are due again although nothing is beyond what is accepted."""
    is_settled = now >= max(memory.quiet_until, memory.since + SETTLED_SECONDS)
    is_less = memory.less_ticks >= LESS_TICKS and is_settled
    if not is_less and now - memory.since < TRUSTED_SECONDS:
        return ""
    return f"verified again: {in_words(memory.accepted)}"
