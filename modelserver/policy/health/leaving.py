"""How an engine is taken away: drained, relaunched, or degraded instead. Pure."""

import math
from dataclasses import replace

from modelserver.policy.health.blame import SLOWER_STILL, residual_of
from modelserver.policy.health.case import EngineCase, Transition
from modelserver.policy.health.guards import cooldown_seconds
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.verdicts import (
    AnySlow,
    Errors,
    Slow,
    SlowBand,
    SlowCanary,
    Stutter,
)
from modelserver.values import Cause

#: A relaunch did not help if the canaries take 1.4 times their baseline afterwards.
STILL_SLOW = 1.4
#: An engine that is drained for errors within 1800 seconds after its canaries passed is
#: relaunched without others.
ERRORS_AGAIN_SECONDS = 1800.0
#: The residual of an engine that fails at everything: a thousand times as slow.
MOST_RESIDUAL = math.log(1000)


def drain_slow(case: EngineCase, slow: AnySlow) -> Transition:
    """Drain it for its speed; of a stutter no canary could clear it."""
    move = drain(case, cause_of(slow), slow.text, residual_of(slow))
    own = move.memory
    if own.health is not Health.DRAINING:
        return move
    own = replace(own, slow_kind=slow.long if isinstance(slow, SlowBand) else "")
    if isinstance(slow, Stutter):
        own = replace(own, stuttered=own.incarnation)
    return Transition(own)


def cause_of(slow: AnySlow) -> Cause:
    return Cause.SLOW_CANARIES if isinstance(slow, SlowCanary) else Cause.SLOW


def is_incurable(own: EngineMemory, slow: AnySlow, common: float) -> bool:
    """Whether it is degraded for as much, as a relaunch did not help against that.

    ``common`` is how slow all engines of its model are, as a logarithm.
    """
    if own.health is not Health.DEGRADED or not own.incurable:
        return False
    if isinstance(slow, Stutter):
        return True  # So seems, for minutes, one that was slow and is well again.
    known = math.log(own.slowdown)
    if own.cause is Cause.SLOW:
        known = max(known, own.residual)
    shared = max(common, slow.peers_residual if isinstance(slow, Slow) else 0.0)
    return residual_of(slow) < known + shared + math.log(SLOWER_STILL)


def drain_for_errors(case: EngineCase, errors: Errors) -> Transition:
    """Drain it, but not for ever where its canaries pass and its requests may fail.

    So it may be with the last engine of a model, and with many that fail alike.
    """
    report, own = case.observation.report, case.memory
    is_last = not case.guard.others_serve(report)
    if passed_lately(own, case.now) and (is_last or errors.of_many):
        peers = "without peers" if is_last else "as others fail, too,"
        why = f"its canaries passed, and {peers} its requests may be to blame"
        return Transition(replace(own, blocked=why))
    residual = min(MOST_RESIDUAL, -math.log(max(1e-9, 1 - errors.at_least)))
    return drain(case, Cause.ERRORS, errors.text, residual)


def passed_lately(own: EngineMemory, now: float) -> bool:
    """Whether its canaries passed after it was drained for errors, not long ago."""
    passed_at = own.errors_passed_at
    return bool(passed_at) and now - passed_at <= ERRORS_AGAIN_SECONDS


def drain(case: EngineCase, cause: Cause, reason: str, residual: float) -> Transition:
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
    return relaunch(replace(case, memory=drained)) if hung else Transition(drained)


def relaunch(case: EngineCase, cause: Cause = Cause.NONE) -> Transition:
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
    return degrade(
        replace(case, memory=blocked), slowdown, f"not relaunched: {refused}"
    )


def degrade(case: EngineCase, slowdown: float, why: str) -> Transition:
    own = case.memory
    degraded = case.moved(
        Health.DEGRADED,
        slowdown=slowdown,
        accepted=0.0,
        disproved=(),
        fresh_from=case.now,
        abort=False,
        slow_ticks=(),
        error_ticks=(),
        clear_ticks=0,
    )
    alert = f"{own.reason}; {why}; it serves {slowdown:.1f} times fewer requests"
    return Transition(degraded, alert="" if own.incurable else alert)
