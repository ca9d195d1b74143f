"""What follows from a verdict on an engine: the table of its health. Pure.

An engine that is slow for long enough gets no new requests, finishes those it has, and
is verified by canaries. If they pass it serves again, else it is relaunched; where that
does not help it serves as degraded. A *tick* is a look at which verdicts are made.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from modelserver.policy.health.canaries import PASSES
from modelserver.policy.health.case import EngineCase, Transition
from modelserver.policy.health.failures import answers_nothing
from modelserver.policy.health.guards import cooldown_seconds
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.restrictions import probation_part
from modelserver.policy.health.tallies import Tallies
from modelserver.policy.health.verdicts import AnySlow, Errors, SlowCanary, Stutter
from modelserver.values import Cause

#: An engine is drained when it was slow on 3 of its last 4 ticks.
SLOW_TICKS = 3
OF_TICKS = 4
#: A suspected or degraded engine is well again after 3 ticks without a slow one.
CLEAN_TICKS = 3
#: An engine is drained when it failed too often on 2 of its last 3 ticks.
ERROR_TICKS = 2
OF_ERROR_TICKS = 3
#: Seconds that a draining engine may take to finish its requests by itself.
DRAIN_SECONDS = 60.0
#: Seconds that it may then take to let go of them, before it is relaunched.
ABORT_SECONDS = 30.0
#: Seconds after which canaries that are not back say that the engine is not well.
CANARY_WAIT_SECONDS = 60.0
#: A relaunch did not help if the canaries take 1.4 times their baseline afterwards.
STILL_SLOW = 1.4
#: Seconds for which slowness is not acted on after canaries passed; doubles each time.
QUIET_SECONDS = 300.0
#: The most that these seconds can grow to.
QUIET_MOST_SECONDS = 7200.0
#: When canaries passed twice, an engine's speed of now is taken to be its own level.
PASSES_TO_BELIEVE = 2
#: Seconds between two checks whether a degraded engine is well again.
RECHECK_SECONDS = 600.0
#: Seconds without a verdict after which relaunches and passes are forgiven.
FORGIVEN_SECONDS = 7200.0
#: An engine that is drained for errors within 1800 seconds after its canaries passed is
#: relaunched without others.
ERRORS_AGAIN_SECONDS = 1800.0
#: The residual of an engine that fails at everything: a thousand times as slow.
MOST_RESIDUAL = math.log(1000)


def advance(case: EngineCase) -> Transition:
    """What follows from one look; nothing for an engine that starts or is dead."""
    report, own = case.observation.report, case.memory
    if not report.serves:
        return Transition(own)
    if report.incarnation != own.incarnation:
        return Transition(_next_incarnation(case))
    return _TRANSITIONS[own.health](case)


def _next_incarnation(case: EngineCase) -> EngineMemory:
    """The memory of an engine whose next incarnation is up, whoever wanted that."""
    own, report = case.memory, case.observation.report
    new = replace(
        own,
        incarnation=report.incarnation,
        slow_ticks=(),
        error_ticks=(),
        clear_ticks=0,
        errors_passed_at=0.0,
        tallies=Tallies(),
        fresh_from=0.0,
        abort=False,
        blocked="",
        since=case.now,
    )
    is_degraded = own.health is Health.DEGRADED
    if not is_degraded and not own.health.is_held:
        return replace(new, health=Health.HEALTHY, cause=Cause.NONE, reason="")
    refused = case.guard.spend_drain(report, 0.0) if is_degraded else ""
    if refused:
        return new  # Canaries are asked for later, when it seems well.
    return replace(new, health=Health.CHECKING, round=own.round + 1)


def _serving(case: EngineCase) -> Transition:
    """Healthy, suspected or on probation: it gets requests."""
    own, found = case.memory, case.found
    if found.hung:
        return _drain(case, Cause.HUNG, found.hung, 0.0)
    if own.health is Health.PROBATION and probation_part(own, case.now) >= 1:
        case = replace(case, memory=case.moved(Health.HEALTHY))
    if not found.tick:
        return Transition(case.memory)
    case = replace(case, memory=_ticked(case))
    own = case.memory
    if found.errors and sum(own.error_ticks[-OF_ERROR_TICKS:]) >= ERROR_TICKS:
        return _drain_for_errors(case, found.errors)
    if own.health is Health.PROBATION:
        return Transition(own)
    if found.slow and sum(own.slow_ticks) >= SLOW_TICKS:
        if isinstance(found.slow, Stutter) and 0 < own.stuttered < own.incarnation:
            return _still_stutters(case, found.slow)
        return _drain_slow(case, found.slow)
    return Transition(_suspected(case))


def _still_stutters(case: EngineCase, found: Stutter) -> Transition:
    """An incarnation before stuttered, too: it serves as degraded, without a loop."""
    own = replace(case.memory, cause=Cause.SLOW, reason=found.text)
    slowdown = max(math.exp(found.residual), STILL_SLOW)
    move = _degrade(
        replace(case, memory=own), slowdown, "it did so before its last start"
    )
    return replace(move, memory=replace(move.memory, incurable=True))


def _drain_slow(case: EngineCase, found: AnySlow) -> Transition:
    """Drain it for its speed; of a stutter no canary could clear it."""
    if isinstance(found, SlowCanary):
        residual = math.log(found.ratio)
        return _drain(case, Cause.SLOW_CANARIES, found.text, residual)
    move = _drain(case, Cause.SLOW, found.text, found.residual)
    own = move.memory
    if not isinstance(found, Stutter) or own.health is not Health.DRAINING:
        return move
    return Transition(replace(own, stuttered=own.incarnation))


def _drain_for_errors(case: EngineCase, errors: Errors) -> Transition:
    """Drain it, but not for ever the last engine of a model, whose canaries pass."""
    report, own = case.observation.report, case.memory
    if _passed_lately(case) and not case.guard.others_serve(report):
        why = "its canaries passed, and without peers its requests may be to blame"
        return Transition(replace(own, blocked=why))
    residual = min(MOST_RESIDUAL, -math.log(max(1e-9, 1 - errors.at_least)))
    return _drain(case, Cause.ERRORS, errors.text, residual)


def _passed_lately(case: EngineCase) -> bool:
    """Whether its canaries passed after it was drained for errors, not long ago."""
    passed_at = case.memory.errors_passed_at
    return bool(passed_at) and case.now - passed_at <= ERRORS_AGAIN_SECONDS


def _ticked(case: EngineCase) -> EngineMemory:
    own, found = case.memory, case.found
    # Canaries that passed have disproved slowness; they are too short for a stutter.
    is_quiet = case.now < own.quiet_until and not isinstance(found.slow, Stutter)
    heeded = found.slow is not None and not is_quiet
    return replace(
        own,
        slow_ticks=(*own.slow_ticks, heeded)[-OF_TICKS:],
        error_ticks=(*own.error_ticks, found.errors is not None)[-OF_ERROR_TICKS:],
    )


def _suspected(case: EngineCase) -> EngineMemory:
    """Suspected from the first slow tick on, until enough ticks are clean."""
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
        and (own.passes or own.relaunches or own.stuttered)
        and case.waited >= FORGIVEN_SECONDS
    ):
        return replace(own, passes=0, relaunches=0, stuttered=0, since=case.now)
    return own


def _drain(case: EngineCase, cause: Cause, reason: str, residual: float) -> Transition:
    """Give it nothing new, if the guards allow that; a hang is relaunched at once."""
    hung = cause is Cause.HUNG
    refused = case.guard.spend_drain(case.observation.report, residual, hung)
    if refused:
        return Transition(replace(case.memory, blocked=refused))
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
    return _relaunch(replace(case, memory=drained)) if hung else Transition(drained)


def _draining(case: EngineCase) -> Transition:
    """Wait until it is empty; after a minute its requests run elsewhere."""
    own = case.memory
    if own.cause is Cause.HUNG:
        return _relaunch(case)
    if case.found.hung:
        hung = replace(case, memory=replace(own, reason=case.found.hung))
        return _relaunch(hung, Cause.HUNG)
    if not case.found.inflight and case.waited > 0:
        is_broken = own.cause is Cause.ERRORS and _is_surely_broken(case)
        if is_broken or own.stuttered == own.incarnation:
            return _relaunch(case)
        ask = own.round + 1
        return Transition(
            case.moved(Health.VERIFY, round=ask, fresh_from=case.now, abort=False)
        )
    if case.waited >= DRAIN_SECONDS + ABORT_SECONDS:
        return _relaunch(case)
    return Transition(replace(own, abort=own.abort or case.waited >= DRAIN_SECONDS))


def _is_surely_broken(case: EngineCase) -> bool:
    """Whether canaries need not tell that an engine fails and not its requests."""
    if not case.guard.others_serve(case.observation.report):
        return False
    samples = case.observation.fresh_samples(case.memory)
    return _passed_lately(case) or answers_nothing(samples)


def _verify(case: EngineCase) -> Transition:
    """Empty: canaries tell whether it was the engine or its requests."""
    own, slowdown = case.memory, case.found.slowdown
    if not slowdown:
        return (
            _relaunch(case) if case.waited >= CANARY_WAIT_SECONDS else Transition(own)
        )
    if slowdown >= PASSES:
        reason = f"{own.reason}; its canaries take {slowdown:.2f}x"
        failed = replace(own, slowdown=slowdown, reason=reason)
        return _relaunch(replace(case, memory=failed))
    if own.cause is Cause.ERRORS:
        passed = case.moved(Health.PROBATION, slowdown=slowdown, fresh_from=case.now)
        return Transition(replace(passed, errors_passed_at=case.now))
    quiet = min(QUIET_MOST_SECONDS, QUIET_SECONDS * 2.0 ** min(own.passes, 10))
    passed = case.moved(
        Health.PROBATION,
        passes=own.passes + 1,
        quiet_until=case.now + quiet,
        fresh_from=case.now,
        slowdown=slowdown,
    )
    if passed.passes < PASSES_TO_BELIEVE:
        return Transition(passed)
    # Canaries pass again and again, so this is its normal speed at these requests.
    level = (own.offset or 0.0) + own.residual
    text = (
        f"{own.reason}; its canaries passed {passed.passes} times, so this now counts "
        "as its normal speed"
    )
    return Transition(replace(passed, offset=level), alert=text)


def _relaunch(case: EngineCase, cause: Cause = Cause.NONE) -> Transition:
    """End this incarnation, if the guards allow that; else it serves as degraded.

    ``cause`` is why, if that is not why it was drained.
    """
    own, report = case.memory, case.observation.report
    refused = case.guard.spend_relaunch(report, own)
    if not refused:
        count = own.relaunches + 1
        gone = case.moved(
            Health.RELAUNCHING,
            cause=cause or own.cause,
            relaunches=count,
            relaunch_from=case.now + cooldown_seconds(count),
            blocked="",
        )
        return Transition(gone, relaunch=own.reason)
    blocked = replace(own, blocked=refused)
    if own.cause is Cause.HUNG:
        return Transition(blocked)  # It serves nobody, so it waits until it may.
    slowdown = max(own.slowdown, math.exp(own.residual), STILL_SLOW)
    return _degrade(
        replace(case, memory=blocked), slowdown, f"not relaunched: {refused}"
    )


def _degrade(case: EngineCase, slowdown: float, why: str) -> Transition:
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
    return Transition(degraded, alert="" if own.incurable else alert)


def _relaunching(case: EngineCase) -> Transition:
    """Wait for the next incarnation; ask again if the store lost the wish."""
    report = case.observation.report
    asked = case.guard.snapshot.wishes[report.id].relaunch >= report.incarnation
    return Transition(case.memory, relaunch="" if asked else case.memory.reason)


def _checking(case: EngineCase) -> Transition:
    """The next incarnation is up, or a degraded one may be well again."""
    own, slowdown = case.memory, case.found.slowdown
    if not slowdown and case.waited < CANARY_WAIT_SECONDS:
        return Transition(own)
    if slowdown >= STILL_SLOW:
        move = _degrade(case, slowdown, "a relaunch did not help")
        return replace(move, memory=replace(move.memory, incurable=True))
    return Transition(
        case.moved(
            Health.PROBATION,
            fresh_from=case.now,
            incurable=False,
            slowdown=1.0,
            cause=Cause.NONE,
            reason="",
        )
    )


def _degraded(case: EngineCase) -> Transition:
    """It serves fewer requests, until it hangs, is well again or may be relaunched."""
    own, found = case.memory, case.found
    if found.hung:
        return _drain(case, Cause.HUNG, found.hung, 0.0)
    if not found.tick:
        return Transition(own)
    own = _ticked(case)
    speed = found.speed
    clear = speed is not None and speed.residual < math.log(PASSES)
    clear = clear and not found.slow and not found.errors
    own = replace(own, clear_ticks=own.clear_ticks + 1 if clear else 0)
    case = replace(case, memory=own)
    if own.clear_ticks >= CLEAN_TICKS and case.waited >= RECHECK_SECONDS:
        return Transition(_recheck(case))
    curable = not own.incurable
    if curable and found.slow and sum(own.slow_ticks) >= SLOW_TICKS:
        refused = case.guard.why_no_relaunch(case.observation.report, own)
        if not refused:
            return _drain_slow(case, found.slow)
    return Transition(own)


def _recheck(case: EngineCase) -> EngineMemory:
    """Ask for canaries; the last engine of a model is believed without them."""
    report, own = case.observation.report, case.memory
    if not case.guard.others_serve(report):
        return case.moved(Health.PROBATION, fresh_from=case.now, incurable=False)
    refused = case.guard.spend_drain(report, 0.0)
    if refused:
        return own
    return case.moved(Health.CHECKING, fresh_from=case.now, round=own.round + 1)


_TRANSITIONS: dict[Health, Callable[[EngineCase], Transition]] = {
    Health.HEALTHY: _serving,
    Health.SUSPECT: _serving,
    Health.PROBATION: _serving,
    Health.DRAINING: _draining,
    Health.VERIFY: _verify,
    Health.RELAUNCHING: _relaunching,
    Health.CHECKING: _checking,
    Health.DEGRADED: _degraded,
}
