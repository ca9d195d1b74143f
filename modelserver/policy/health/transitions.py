"""What follows from a verdict on an engine: the table of its health. Pure.

An engine that is slow for long enough gets no new requests, finishes those it has, and
is verified by canaries. If they pass it serves again, else it is relaunched; where that
does not help it serves as degraded. A *tick* is a look at which verdicts are made.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from modelserver.policy.health.accepting import (
    TRUSTED_SECONDS,
    accept,
    find_doubt,
    find_news,
    followed,
    is_well,
)
from modelserver.policy.health.blame import SHARED, residual_of
from modelserver.policy.health.canaries import PASSES
from modelserver.policy.health.case import EngineCase, Transition
from modelserver.policy.health.disproved import with_disproved
from modelserver.policy.health.failures import answers_nothing
from modelserver.policy.health.leaving import (
    STILL_SLOW,
    cause_of,
    degrade,
    drain,
    drain_for_errors,
    drain_slow,
    is_incurable,
    passed_lately,
    relaunch,
)
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.restrictions import probation_part
from modelserver.policy.health.tallies import Tallies
from modelserver.policy.health.verdicts import (
    AnySlow,
    SlowCanary,
    Stutter,
)
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
#: Rounds of canaries that are asked for again after a relaunch where others use the
#: engine's processors.
RECHECKS = 3
#: Seconds for which what was verified is not acted on; doubles each time.
QUIET_SECONDS = 300.0
#: The most that these seconds can grow to.
QUIET_MOST_SECONDS = 7200.0
#: When canaries passed twice, or for several engines, an engine serves as degraded: it
#: is slow for what it is asked, and a relaunch would change nothing.
PASSES_TO_BELIEVE = 2
#: Seconds between two checks whether a degraded engine is well again.
RECHECK_SECONDS = 600.0
#: Seconds without a verdict after which relaunches and passes are forgiven.
FORGIVEN_SECONDS = 7200.0


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
    new = own.of_incarnation(report.incarnation, case.now)
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
        return drain(case, Cause.HUNG, found.hung, 0.0)
    if own.health is Health.PROBATION and probation_part(own, case.now) >= 1:
        case = replace(case, memory=case.moved(Health.HEALTHY))
    if not found.tick:
        return Transition(case.memory)
    case = replace(case, memory=_ticked(case))
    own = case.memory
    if found.errors and _fails(own):
        return drain_for_errors(case, found.errors)
    if own.health is Health.PROBATION:
        return Transition(own)
    if found.slow and _lasts(own):
        if isinstance(found.slow, Stutter) and 0 < own.stuttered < own.incarnation:
            return _still_stutters(case, found.slow)
        return _drain_for_slowness(case, found.slow)
    return Transition(_suspected(case))


def _lasts(own: EngineMemory) -> bool:
    """Whether it was found slow at enough of the last looks."""
    return sum(own.slow_ticks) >= SLOW_TICKS


def _fails(own: EngineMemory) -> bool:
    """Whether it failed too often at enough of the last looks."""
    return sum(own.error_ticks[-OF_ERROR_TICKS:]) >= ERROR_TICKS


def _still_stutters(case: EngineCase, found: Stutter) -> Transition:
    """An incarnation before stuttered, too: it serves as degraded, without a loop."""
    own = replace(case.memory, cause=Cause.SLOW, reason=found.text)
    slowdown = max(math.exp(found.residual), STILL_SLOW)
    move = degrade(
        replace(case, memory=own), slowdown, "it did so before its last start"
    )
    return replace(move, memory=replace(move.memory, incurable=True))


def _drain_for_slowness(case: EngineCase, slow: AnySlow) -> Transition:
    own, found = case.memory, case.found
    if found.let_off:
        return Transition(replace(found.let_off, error_ticks=own.error_ticks))
    if found.verified:
        waits = f"{found.verified}, which is slow as well, is verified for it"
        if own.health is not Health.DEGRADED:
            own = _suspected(case)
        return Transition(replace(own, blocked=waits))
    return drain_slow(case, slow)


def _ticked(case: EngineCase) -> EngineMemory:
    own, slow = case.memory, case.found.slow
    quiet = case.now < own.quiet_until
    # What was verified is accepted meanwhile: what is found beyond it is new. Canaries
    # are too short for a stutter.
    heeded = slow is not None and not (
        quiet and isinstance(slow, SlowCanary) and not own.accepted
    )
    if slow and is_incurable(own, slow, case.found.common):
        heeded = False
    over = not quiet and own.health is not Health.DEGRADED
    slow_ticks = (*own.slow_ticks, heeded)[-OF_TICKS:]
    failed = case.found.errors is not None
    error_ticks = (*own.error_ticks, failed)[-OF_ERROR_TICKS:]
    is_known = own.keeps_limit
    if (slow_ticks, error_ticks) == (own.slow_ticks, own.error_ticks) and not is_known:
        return own  # Of most engines there is nothing new, at most looks.
    if over and own.accepted:
        # What it was known for makes no stutter of it afterwards.
        own = replace(own, tallies=Tallies())
    return replace(
        own,
        accepted=0.0 if over else own.accepted,
        slow_kind="" if over else own.slow_kind,
        slow_ticks=slow_ticks,
        error_ticks=error_ticks,
    )


def _suspected(case: EngineCase) -> EngineMemory:
    """Suspected from the first slow tick on, until enough ticks are clean."""
    own, slow = case.memory, case.found.slow
    if slow and any(own.slow_ticks[-1:]):
        residual, cause = residual_of(slow), cause_of(slow)
        if own.health is Health.SUSPECT:
            return replace(own, residual=residual, cause=cause)
        return case.moved(
            Health.SUSPECT, cause=cause, reason=slow.text, residual=residual
        )
    clean = not any(own.slow_ticks[-CLEAN_TICKS:])
    if own.health is Health.SUSPECT and clean:
        return case.moved(Health.HEALTHY, cause=Cause.NONE, reason="", blocked="")
    if (
        own.health is Health.HEALTHY
        and (own.passes or own.relaunches or own.stuttered)
        and case.waited >= FORGIVEN_SECONDS
    ):
        return replace(
            own, passes=0, relaunches=0, stuttered=0, disproved=(), since=case.now
        )
    return own


def _draining(case: EngineCase) -> Transition:
    """Wait until it is empty; after a minute its requests run elsewhere."""
    own = case.memory
    if own.cause is Cause.HUNG:
        return relaunch(case)
    if case.found.hung:
        hung = replace(case, memory=replace(own, reason=case.found.hung))
        return relaunch(hung, Cause.HUNG)
    if not case.found.inflight and case.waited > 0:
        is_broken = own.cause is Cause.ERRORS and _is_surely_broken(case)
        if is_broken or own.stuttered == own.incarnation:
            return relaunch(case)
        ask = own.round + 1
        return Transition(
            case.moved(Health.VERIFY, round=ask, fresh_from=case.now, abort=False)
        )
    if case.waited >= DRAIN_SECONDS + ABORT_SECONDS:
        return relaunch(case)
    return Transition(replace(own, abort=own.abort or case.waited >= DRAIN_SECONDS))


def _is_surely_broken(case: EngineCase) -> bool:
    """Whether canaries need not tell that an engine fails and not its requests."""
    if not case.guard.others_serve(case.observation.report):
        return False
    samples = case.observation.fresh_samples(case.memory)
    return passed_lately(case.memory, case.now) or answers_nothing(samples)


def _verify(case: EngineCase) -> Transition:
    """Empty: canaries tell whether it was the engine or its requests."""
    own, slowdown = case.memory, case.found.slowdown
    if not slowdown:
        return relaunch(case) if case.waited >= CANARY_WAIT_SECONDS else Transition(own)
    # What canaries found is held against the engine only if they find it again.
    is_slow = slowdown >= (STILL_SLOW if own.cause is Cause.SLOW_CANARIES else PASSES)
    if is_slow and not case.is_common:
        reason = f"{own.reason}; its canaries take {slowdown:.2f}x"
        failed = replace(own, slowdown=slowdown, reason=reason)
        return relaunch(replace(case, memory=failed))
    if own.cause is Cause.ERRORS:
        passed = case.moved(Health.PROBATION, slowdown=slowdown, fresh_from=case.now)
        return Transition(replace(passed, errors_passed_at=case.now))
    if is_slow:
        # All engines are as slow by now; that is no pass, and nothing to relaunch for.
        return Transition(case.moved(Health.PROBATION, fresh_from=case.now))
    quiet = min(QUIET_MOST_SECONDS, QUIET_SECONDS * 2.0 ** min(own.passes, 10))
    of_all = own.cause is Cause.SLOW and not own.slow_kind
    by_requests = own.residual if of_all else 0.0
    passed = case.moved(
        Health.PROBATION,
        passes=own.passes + 1,
        quiet_until=case.now + quiet,
        fresh_from=case.now,
        slowdown=slowdown,
        accepted=own.accepted + by_requests,
        disproved=with_disproved(own, by_requests),
    )
    for_others = case.found.verified == case.observation.report.id
    believed = passed.passes >= PASSES_TO_BELIEVE or for_others
    if not passed.keeps_limit or not believed:
        return Transition(passed)
    return accept(case, passed)


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
    if slowdown >= STILL_SLOW and not case.is_common:
        if case.observation.host_busy >= SHARED and own.rechecks < RECHECKS:
            again = {"round": own.round + 1, "rechecks": own.rechecks + 1}
            return Transition(case.moved(Health.CHECKING, fresh_from=case.now, **again))
        move = degrade(case, slowdown, "a relaunch did not help")
        return replace(move, memory=replace(move.memory, incurable=True))
    return Transition(
        case.moved(
            Health.PROBATION,
            fresh_from=case.now,
            incurable=False,
            slowdown=1.0,
            rechecks=0,
            cause=Cause.NONE,
            reason="",
        )
    )


def _degraded(case: EngineCase) -> Transition:
    """It serves fewer requests, until it hangs, is well again or may be relaunched."""
    own, found = case.memory, case.found
    if found.hung:
        return drain(case, Cause.HUNG, found.hung, 0.0)
    if not found.tick:
        return Transition(own)
    own = _ticked(case)
    if own.keeps_limit:
        return _slow_for_some(replace(case, memory=own))
    speed = found.speed
    clear = speed is not None and speed.residual < math.log(PASSES)
    clear = clear and not found.slow and not found.errors
    own = replace(own, clear_ticks=own.clear_ticks + 1 if clear else 0)
    if own.incurable and speed and case.waited < RECHECK_SECONDS:
        own = replace(own, residual=max(own.residual, speed.residual))
    case = replace(case, memory=own)
    if own.clear_ticks >= CLEAN_TICKS and case.waited >= RECHECK_SECONDS:
        return Transition(_recheck(case))
    return _degraded_further(case)


def _degraded_further(case: EngineCase) -> Transition:
    """It is relaunched once it may be, and for what no relaunch was tried against."""
    own, found = case.memory, case.found
    if case.guard.why_no_relaunch(case.observation.report, own):
        return Transition(own)
    curable = replace(case, memory=replace(own, incurable=False))
    if found.errors and _fails(own):
        move = drain_for_errors(curable, found.errors)
    elif found.slow and _lasts(own):
        move = drain_slow(curable, found.slow)
    else:
        return Transition(own)
    refused = move.memory.health is Health.DEGRADED
    return Transition(replace(own, blocked=move.memory.blocked)) if refused else move


def _slow_for_some(case: EngineCase) -> Transition:
    """Slow for some requests only: another fault counts like a first one."""
    own, found = case.memory, case.found
    if found.errors and _fails(own):
        return drain_for_errors(case, found.errors)
    if found.slow and _lasts(own):
        return _drain_for_slowness(case, found.slow)
    return _accepted(case) if own.accepted else _slow_for_a_kind(case)


def _slow_for_a_kind(case: EngineCase) -> Transition:
    """Slow for long prompts or answers, as canaries do not show; found anew hourly."""
    if case.waited < TRUSTED_SECONDS:
        return Transition(case.memory)
    well = {"slow_kind": "", "cause": Cause.NONE, "reason": ""}
    return Transition(case.moved(Health.HEALTHY, **well))


def _accepted(case: EngineCase) -> Transition:
    """It is slow beyond what canaries show, until its requests are well."""
    own, found = case.memory, case.found
    if not found.slow and found.speed:
        own = followed(own, found.speed)
    if is_well(own):
        well = {"accepted": 0.0, "slowdown": 1.0, "cause": Cause.NONE, "reason": ""}
        well |= {"tallies": Tallies(), "unwell_ticks": 0, "unwell_most": 0}
        well |= {"disproved": ()}
        return Transition(case.moved(Health.HEALTHY, **well))
    news = find_news(own, case.now)
    if news:
        told = replace(own, slowdown=math.exp(own.accepted), reason=news)
        return Transition(told, alert=news)
    doubt = find_doubt(own, case.now, found.is_one_of_many)
    if doubt:
        return drain(replace(case, memory=own), Cause.SLOW, doubt, 0.0)
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
