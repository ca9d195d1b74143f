"""How an engine's requests get into its tallies, and which of them are late. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from modelserver.measured import Sample
from modelserver.policy.health.cost_model import Fit, row
from modelserver.policy.health.memory import EngineMemory, TypeMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import beyond_wander
from modelserver.policy.health.tallies import (
    HALF_LIFE_SECONDS,
    Counted,
    Tallies,
    added,
    size_of,
)
from modelserver.values import Outcome

#: A late request took at least 2 seconds more than expected, ...
LATE_SECONDS = 2.0
#: ... of which reading prompts leaves at least 1 second unexplained, ...
UNEXPLAINED_SECONDS = 1.0
#: ... 1.25 times as long, ...
LATE_TIMES = 1.25
#: ... and longer by 3 standard deviations of the fit.
LATE_SIGMAS = 3.0
#: Of the seconds by which a request is late, this share has to be a silence of its
#: engine: requests that queue are late, too, while others are answered.
SILENT_SHARE = 0.5
#: The fit is linear in prompts. One of 4096 tokens may take twice as long as it says,
#: one of 8192 three times, and so on, before a request counts as late.
CURVED_TOKENS = 4096.0
#: From 4 requests at once on a silence is 4 times the mean time between two answers.
FEW = 4
SILENT_TIMES = 4.0


@dataclass(frozen=True, slots=True)
class Reading:
    """How long an engine may take to read the prompts that it has got of late."""

    #: The requests that are known.
    samples: Sequence[Sample]
    #: Seconds for one token.
    token_seconds: float
    #: Seconds beyond what the fit expects, for each token.
    more_seconds: float
    #: Seconds for one prompt, with both.
    prompt_seconds: float
    #: Seconds for a token of an answer, on an engine that has nothing else.
    answer_seconds: float

    @classmethod
    def of(cls, samples: Sequence[Sample], fit: Fit) -> "Reading":
        """By the prompts of these requests."""
        prompts = [each.prompt_tokens for each in samples]
        tokens = sum(prompts)
        share = fit.shares[1] + fit.shares[4]
        more = share * sum(each * each for each in prompts) / CURVED_TOKENS
        return cls(
            samples=samples,
            token_seconds=share,
            more_seconds=more / max(1, tokens),
            prompt_seconds=(share * tokens + more) / max(1, len(prompts)),
            answer_seconds=fit.shares[2],
        )

    def unforeseen(self, sample: Sample) -> float:
        """Seconds of a request that the fit does not know of.

        Its engine may first have read what it had got before, and all the prompts that
        it read may have been longer than the fit is good for.
        """
        return self._backlog(sample) + self.more_seconds * sample.prompt_admitted

    def _backlog(self, sample: Sample) -> float:
        """Seconds to read what its engine had got before and had not read yet.

        What is answered had been read by the time that its answer took at least. Of
        what has no answer yet nobody knows.
        """
        began, seconds = sample.ended_at - sample.seconds, 0.0
        unknown = sample.inflight_start
        for each in self.samples:
            if each.ended_at - each.seconds < began < each.ended_at:
                unknown -= 1
                answer = each.completion_tokens * self.answer_seconds
                if each.ended_at - answer > began:
                    tokens = each.prompt_tokens
                    more = self.token_seconds * tokens / CURVED_TOKENS
                    seconds += tokens * (self.token_seconds + more)
        return seconds + max(0, unknown) * self.prompt_seconds

    def lessened(self, log: float, sample: Sample) -> float:
        """A logarithm of measured over expected seconds without what is so explained.

        It stays above 0, so that engines with long prompts do not seem fast.
        """
        if log <= 0:
            return log
        more = self.more_seconds * sample.prompt_admitted
        left = max(1e-3, 1 - more / max(1e-9, sample.seconds))
        return max(0.0, log + math.log(left))


def with_tallies(
    observations: Mapping[str, Observation],
    engines: Mapping[str, EngineMemory],
    types: Mapping[str, TypeMemory],
    passed: float,
    now: float,
) -> dict[str, EngineMemory]:
    """The memories with what is new counted; ``passed`` seconds since the last time."""
    counted = dict(engines)
    fades = 0.5 ** (passed / HALF_LIFE_SECONDS)
    for name, observation in observations.items():
        own, kind = engines[name], types.get(observation.type)
        old = own.tallies
        if old.since < own.fresh_from:
            old = Tallies()
        new: list[Counted] = []
        # No canary could disprove a stutter, so no young fit tells what is late.
        if kind and kind.fit and kind.frozen and not own.health.is_held:
            late = late_from(kind.fit.sigma, kind.wander)
            new = [
                *_requests(observation, own, kind.fit, late),
                *_canaries(observation, own, late),
            ]
        if old.cells or new or old is not own.tallies:
            counted[name] = replace(own, tallies=added(old, new, fades, now))
    return counted


def late_from(sigma: float, wander: float) -> float:
    """The logarithm of measured over expected seconds from which a request is late.

    >>> round(math.exp(late_from(sigma=0.05, wander=0.02)), 2)
    1.25
    """
    beyond = math.log(beyond_wander(wander))
    return max(math.log(LATE_TIMES), LATE_SIGMAS * sigma, beyond)


def _requests(
    observation: Observation, own: EngineMemory, fit: Fit, late: float
) -> Iterator[Counted]:
    """Its answered requests that have come since the last time."""
    offset, most = own.offset or 0.0, observation.spec.max_running
    if all(each.ended_at <= own.seen_at for each in observation.samples):
        return
    answered = [each for each in observation.samples if each.outcome is Outcome.OK]
    reading = Reading.of(answered, fit)
    for each in answered:
        is_new = each.ended_at > own.seen_at and each.ended_at >= own.fresh_from
        if not is_new or each.incarnation != own.incarnation:
            continue
        log = fit.log_ratio(row(each, most)) - offset
        by = each.seconds * (1 - math.exp(-log)) if log >= late else 0.0
        if by < LATE_SECONDS or not _was_silent(each, by, answered):
            by = 0.0
        by -= reading.unforeseen(each) if by else 0.0
        if by < UNEXPLAINED_SECONDS:
            by = 0.0
        log = reading.lessened(log, each)
        size = size_of(each.prompt_tokens, each.completion_tokens)
        yield Counted(size, log, by, each.ended_at - each.seconds, each.ended_at)


def _canaries(
    observation: Observation, own: EngineMemory, late: float
) -> Iterator[Counted]:
    """Its new idle canaries, which a stutter makes late as well."""
    since = max(own.tallies.canary_at, own.shared_at)
    for each in observation.own_canaries(own.fresh_from):
        if each.at <= since or each.loaded or not own.baseline:
            continue
        log = math.log(each.seconds / own.baseline)
        by = each.seconds - own.baseline
        by = by if log >= late and by >= LATE_SECONDS else 0.0
        yield Counted(0, log, by, each.at, each.at + each.seconds, is_canary=True)


def _was_silent(sample: Sample, by: float, others: Sequence[Sample]) -> bool:
    """Whether an engine answered nothing for most of the time that a request lost."""
    ended, began = sample.ended_at, sample.ended_at - sample.seconds
    ends = sorted(each.ended_at for each in others if each.ended_at <= ended)
    least = LATE_SECONDS
    if min(sample.inflight_start, sample.inflight_end) >= FEW:
        least = max(least, SILENT_TIMES * (ends[-1] - ends[0]) / len(ends))
    silent = (after - max(before, began) for before, after in pairwise(ends))
    return sum(each for each in silent if each >= least) >= SILENT_SHARE * by
