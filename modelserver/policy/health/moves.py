"""The life of an engine under control: from a verdict to what follows from it. Pure.

An engine that is slow for long enough gets nothing new, is emptied, and is verified by
canaries; then it is believed and comes back, or it is relaunched, and where that does
not help it serves as degraded. The moves are a table from where it stands.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from modelserver.policy.health.case import EngineCase, HealthMove
from modelserver.policy.health.guards import cooldown_seconds
from modelserver.policy.health.learning import PASSES
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.use import probation_part
from modelserver.policy.health.verdicts import Slow, SlowCanary
from modelserver.values import Cause

#: Slow on so many of so many ticks; well again after so many.
SLOW_TICKS, OF_TICKS, CLEAN_TICKS = 3, 4, 3
#: Failing on so many of so many ticks.
ERROR_TICKS, OF_ERROR_TICKS = 2, 3
#: An engine may finish what it has for so long, in seconds, and let go for so long.
DRAIN_SECONDS, ABORT_SECONDS = 60.0, 30.0
#: Canaries of an empty engine that are not back by then say that it is not well.
CANARY_WAIT_SECONDS = 60.0
#: Still so many times slower after a relaunch: that did not help.
STILL_SLOW = 1.4
#: Slowness is not acted on for so long after a canary passed; twice as long each time.
QUIET_SECONDS, QUIET_MOST_SECONDS = 300.0, 7200.0
#: From so many passes on, an engine's own level is taken to be what it is now.
PASSES_TO_BELIEVE = 2
#: A degraded engine may show so seldom that it has become well, in seconds.
RECHECK_SECONDS = 600.0
#: An engine without a verdict for so long has its relaunches and passes forgiven.
FORGIVEN_SECONDS = 7200.0
#: An engine that only fails is at least so little use, as a residual.
MOST_RESIDUAL = math.log(1000)


def advance(case: EngineCase) -> HealthMove:
    """One look at one engine. Does nothing about one that is starting or dead."""
    report, own = case.sight.report, case.memory
    if not report.serves:
        return HealthMove(own)
    if report.incarnation != own.incarnation:
        return HealthMove(_reborn(case))
    return _MOVES[own.health](case)


def _reborn(case: EngineCase) -> EngineMemory:
    """Its next incarnation is up, whoever wanted that."""
    own, report = case.memory, case.sight.report
    new = replace(
        own,
        incarnation=report.incarnation,
        slow_ticks=(),
        error_ticks=(),
        clear_ticks=0,
        fresh_from=0.0,
        abort=False,
        blocked="",
        since=case.now,
    )
    is_degraded = own.health is Health.DEGRADED
    if not is_degraded and not own.health.is_held:
        return replace(new, health=Health.HEALTHY, cause=Cause.NONE, reason="")
    if is_degraded and case.guard.refuses_down(report, 0.0):
        return new  # It is asked for canaries later, when it seems well.
    return replace(new, health=Health.CHECKING, round=own.round + 1)


def _serving(case: EngineCase) -> HealthMove:
    """Healthy, suspected or on probation: it gets requests."""
    own, found = case.memory, case.found
    if found.hung:
        return _take_down(case, Cause.HUNG, found.hung, 0.0)
    if own.health is Health.PROBATION and probation_part(own, case.now) >= 1:
        case = replace(case, memory=case.moved(Health.HEALTHY))
    if not found.tick:
        return HealthMove(case.memory)
    case = replace(case, memory=_ticked(case))
    own = case.memory
    if found.errors and sum(own.error_ticks[-OF_ERROR_TICKS:]) >= ERROR_TICKS:
        least = found.errors.at_least
        residual = min(MOST_RESIDUAL, -math.log(max(1e-9, 1 - least)))
        return _take_down(case, Cause.ERRORS, found.errors.text, residual)
    if own.health is Health.PROBATION:
        return HealthMove(own)
    if found.slow and sum(own.slow_ticks) >= SLOW_TICKS:
        is_slow = isinstance(found.slow, Slow)
        cause = Cause.SLOW if is_slow else Cause.SLOW_CANARIES
        residual = _residual(found.slow)
        return _take_down(case, cause, found.slow.text, residual)
    return HealthMove(_suspected(case))


def _residual(slow: Slow | SlowCanary) -> float:
    return slow.residual if isinstance(slow, Slow) else math.log(slow.ratio)


def _ticked(case: EngineCase) -> EngineMemory:
    own, found = case.memory, case.found
    heeded = found.slow is not None and case.now >= own.quiet_until
    return replace(
        own,
        slow_ticks=(*own.slow_ticks, heeded)[-OF_TICKS:],
        error_ticks=(*own.error_ticks, found.errors is not None)[-OF_ERROR_TICKS:],
    )


def _suspected(case: EngineCase) -> EngineMemory:
    """Under suspicion from the first slow tick, until enough are clean."""
    own = case.memory
    if any(own.slow_ticks[-1:]):
        if own.health is Health.SUSPECT:
            return own
        text = case.found.slow.text if case.found.slow else ""
        return case.moved(Health.SUSPECT, cause=Cause.SLOW, reason=text)
    clean = not any(own.slow_ticks[-CLEAN_TICKS:])
    if own.health is Health.SUSPECT and clean:
        return case.moved(Health.HEALTHY, cause=Cause.NONE, reason="", blocked="")
    if (
        own.health is Health.HEALTHY
        and (own.passes or own.relaunches)
        and case.waited >= FORGIVEN_SECONDS
    ):
        return replace(own, passes=0, relaunches=0, since=case.now)
    return own


def _take_down(
    case: EngineCase, cause: Cause, reason: str, residual: float
) -> HealthMove:
    """Give it nothing more, if the guards allow that; a hang waits for nothing."""
    hung = cause is Cause.HUNG
    refused = case.guard.refuses_down(case.sight.report, residual, hung)
    if refused:
        return HealthMove(replace(case.memory, blocked=refused))
    drained = case.moved(
        Health.DRAINING,
        cause=cause,
        reason=reason,
        residual=residual,
        blocked="",
        abort=hung,
        slow_ticks=(),
        error_ticks=(),
        clear_ticks=0,
    )
    return _relaunch(replace(case, memory=drained)) if hung else HealthMove(drained)


def _draining(case: EngineCase) -> HealthMove:
    """Wait until it is empty: a minute, then its requests run elsewhere."""
    own = case.memory
    if own.cause is Cause.HUNG:
        return _relaunch(case)
    if case.found.hung:
        hung = replace(case, memory=replace(own, reason=case.found.hung))
        return _relaunch(hung, Cause.HUNG)
    if not case.found.inflight and case.waited > 0:
        if own.cause is Cause.ERRORS:
            return _relaunch(case)
        ask = own.round + 1
        return HealthMove(
            case.moved(Health.VERIFY, round=ask, fresh_from=case.now, abort=False)
        )
    if case.waited >= DRAIN_SECONDS + ABORT_SECONDS:
        return _relaunch(case)
    return HealthMove(replace(own, abort=own.abort or case.waited >= DRAIN_SECONDS))


def _verify(case: EngineCase) -> HealthMove:
    """Empty: canaries tell whether it was the engine or its requests."""
    own, slowdown = case.memory, case.found.slowdown
    if not slowdown:
        return (
            _relaunch(case) if case.waited >= CANARY_WAIT_SECONDS else HealthMove(own)
        )
    if slowdown >= PASSES:
        reason = f"{own.reason}; its canaries take {slowdown:.2f}x"
        failed = replace(own, slowdown=slowdown, reason=reason)
        return _relaunch(replace(case, memory=failed))
    quiet = min(QUIET_MOST_SECONDS, QUIET_SECONDS * 2.0 ** min(own.passes, 10))
    passed = case.moved(
        Health.PROBATION,
        passes=own.passes + 1,
        quiet_until=case.now + quiet,
        fresh_from=case.now,
        slowdown=slowdown,
    )
    if passed.passes < PASSES_TO_BELIEVE:
        return HealthMove(passed)
    # Its canaries are well again and again: this is how it is, with these requests.
    level = (own.offset or 0.0) + own.residual
    text = (
        f"{own.reason}; its canaries passed {passed.passes} times, so this now counts "
        "as its normal speed"
    )
    return HealthMove(replace(passed, offset=level), alert=text)


def _relaunch(case: EngineCase, cause: Cause = Cause.NONE) -> HealthMove:
    """End this incarnation, if the guards allow that; else make the best of it.

    ``cause`` is what it is ended for, if that is not what it was drained for.
    """
    own, report = case.memory, case.sight.report
    refused = case.guard.refuses_relaunch(report, own)
    if not refused:
        count = own.relaunches + 1
        gone = case.moved(
            Health.RELAUNCHING,
            cause=cause or own.cause,
            relaunches=count,
            relaunch_from=case.now + cooldown_seconds(count),
            blocked="",
        )
        return HealthMove(gone, relaunch=own.reason)
    blocked = replace(own, blocked=refused)
    if own.cause is Cause.HUNG:
        return HealthMove(blocked)  # It serves nobody, so it waits until it may.
    slowdown = max(own.slowdown, math.exp(own.residual), STILL_SLOW)
    return _degrade(
        replace(case, memory=blocked), slowdown, f"not relaunched: {refused}"
    )


def _degrade(case: EngineCase, slowdown: float, why: str) -> HealthMove:
    own = case.memory
    degraded = case.moved(
        Health.DEGRADED,
        slowdown=slowdown,
        fresh_from=case.now,
        abort=False,
        slow_ticks=(),
        error_ticks=(),
        clear_ticks=0,
    )
    alert = f"{own.reason}; {why}; it serves {slowdown:.1f} times fewer requests"
    return HealthMove(degraded, alert="" if own.incurable else alert)


def _relaunching(case: EngineCase) -> HealthMove:
    """Its wish may have been lost with the store's data; then it is made again."""
    report = case.sight.report
    asked = case.guard.snapshot.wishes[report.id].relaunch >= report.incarnation
    return HealthMove(case.memory, relaunch="" if asked else case.memory.reason)


def _checking(case: EngineCase) -> HealthMove:
    """The next incarnation is up, or a degraded one may be well again."""
    own, slowdown = case.memory, case.found.slowdown
    if not slowdown and case.waited < CANARY_WAIT_SECONDS:
        return HealthMove(own)
    if slowdown >= STILL_SLOW:
        move = _degrade(case, slowdown, "a relaunch did not help")
        return replace(move, memory=replace(move.memory, incurable=True))
    return HealthMove(
        case.moved(
            Health.PROBATION,
            fresh_from=case.now,
            incurable=False,
            slowdown=1.0,
            cause=Cause.NONE,
            reason="",
        )
    )


def _degraded(case: EngineCase) -> HealthMove:
    """It serves what it can; a hang ends that, and so does being well again."""
    own, found = case.memory, case.found
    if found.hung:
        return _take_down(case, Cause.HUNG, found.hung, 0.0)
    if not found.tick:
        return HealthMove(own)
    own = _ticked(case)
    standing = found.standing
    clear = standing is not None and standing.residual < math.log(PASSES)
    clear = clear and not found.slow and not found.errors
    own = replace(own, clear_ticks=own.clear_ticks + 1 if clear else 0)
    case = replace(case, memory=own)
    if own.clear_ticks >= CLEAN_TICKS and case.waited >= RECHECK_SECONDS:
        return HealthMove(_recheck(case))
    curable = not own.incurable
    if curable and found.slow and sum(own.slow_ticks) >= SLOW_TICKS:
        refused = case.guard.forbids_relaunch(case.sight.report, own)
        if not refused:
            return _take_down(case, Cause.SLOW, found.slow.text, _residual(found.slow))
    return HealthMove(own)


def _recheck(case: EngineCase) -> EngineMemory:
    """Ask the canaries; the last engine of a model is believed without."""
    report, own = case.sight.report, case.memory
    if not case.guard.others_serve(report):
        return case.moved(Health.PROBATION, fresh_from=case.now, incurable=False)
    if case.guard.refuses_down(report, 0.0):
        return own
    return case.moved(Health.CHECKING, fresh_from=case.now, round=own.round + 1)


_MOVES: dict[Health, Callable[[EngineCase], HealthMove]] = {
    Health.HEALTHY: _serving,
    Health.SUSPECT: _serving,
    Health.PROBATION: _serving,
    Health.DRAINING: _draining,
    Health.VERIFY: _verify,
    Health.RELAUNCHING: _relaunching,
    Health.CHECKING: _checking,
    Health.DEGRADED: _degraded,
}
