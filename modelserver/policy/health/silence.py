"""Whether an engine is silent for longer than its requests explain. Pure.

With a counter of tokens a silence is measured against the longest prefill, without one
by suspicion that accrues over the usual gaps between answers. An engine that gives a
token whenever its launcher asks for one is not silent: all its requests may be endless.
"""

import math
from collections.abc import Sequence

from modelserver.measured import EngineLoad, Metrics, Sample
from modelserver.policy.health.cost_model import Fit
from modelserver.policy.health.verdicts import Hang
from modelserver.values import EngineReport, Outcome

#: With a token counter: an engine hangs after 30 seconds without a token ...
STALL_SECONDS = 30.0
#: ... and after 3 times the seconds of its longest prefill, as the fit predicts it.
STALL_PREFILLS = 3.0
#: Without one: it hangs when a silence has a chance of less than 10 to the minus 8, ...
HANG_PHI = 8.0
#: ... after 60 seconds without an answer ...
HANG_SECONDS = 60.0
#: ... and after 2 times the seconds of its longest request of late.
LONGEST = 2.0


def find_hang(
    engine: EngineReport,
    load: EngineLoad | None,
    metrics: Metrics | None,
    samples: Sequence[Sample],
    fit: Fit | None,
    now: float,
) -> Hang | None:
    """The verdict that an engine is silent for longer than its requests explain."""
    if load is None or not load.inflight:
        return None
    tokens_at = metrics.tokens_at if metrics else 0.0
    silent = load.idle_seconds
    if tokens_at:
        # Answers that come are tokens, whatever the counter says.
        silent = min(now - tokens_at, silent)
    else:
        silent = min(now - engine.alive_at, silent)
    # Silence from before its oldest request is that of an empty engine.
    silent = min(silent, load.oldest_seconds)
    if silent <= (STALL_SECONDS if tokens_at else HANG_SECONDS):
        return None
    own = [each for each in samples if each.incarnation == engine.incarnation]
    if tokens_at:
        sign, allowed = "token", STALL_PREFILLS * _prefill_seconds(own, fit)
    else:
        sign, allowed = "answer", _longest_gap(own, load.inflight)
    if silent <= allowed:
        return None
    allowed = max(STALL_SECONDS, allowed)
    return Hang(engine.id, engine.incarnation, silent, allowed, load.inflight, sign)


def _prefill_seconds(samples: Sequence[Sample], fit: Fit | None) -> float:
    if fit is None or not samples:
        return 0.0
    _, prompt, _, _, admitted = fit.shares
    return (prompt + admitted) * max(sample.prompt_tokens for sample in samples)


def _longest_gap(samples: Sequence[Sample], inflight: int) -> float:
    """Seconds without an answer after which an engine surely hangs.

    Gaps between answers are taken to be exponential. Their mean is the greater of the
    mean gap of late and a request's mean seconds over the requests in flight.
    """
    answered = [each for each in samples if each.outcome is Outcome.OK]
    if len(answered) < 2:
        return HANG_SECONDS
    seconds = [each.seconds for each in answered]
    times = [each.ended_at for each in answered]
    mean = max(
        (max(times) - min(times)) / (len(times) - 1),
        sum(seconds) / len(seconds) / inflight,
    )
    accrued = HANG_PHI * math.log(10) * mean
    # An engine that was empty in between had long gaps which say nothing.
    accrued = min(accrued, HANG_PHI * math.log(10) * sum(seconds) / len(seconds))
    return max(HANG_SECONDS, accrued, LONGEST * max(seconds))
