"""Whose an engine's failures are: its own, or those of what it was asked. Pure.

A failed request that another attempt answers shows an engine that fails at random; one
that fails again, where requests that began later were answered, is most likely at fault
itself. The shares of both say how much a failure counts that nothing is known of yet.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

#: An engine's id and its incarnation.
Place = tuple[str, int]

#: How many of an engine's last requests its share of failures comes from.
RECENT_REQUESTS = 64
#: The share of requests that an engine fails at by chance, as long as nothing is known.
FIRST_SHARE = 0.0005
#: Failures since the last answer count against the engine, whosever they seem to be,
#: once the share that is usual for it explains them no likelier than this.
LEAST_USUAL = 0.001
#: Probes tell how an engine does as long as the share that was usual for it explains
#: what it failed at since its last answer likelier than this.
LEAST_PROBED = 1e-6
#: How many of an engine's requests it takes to forget most of the share that was usual.
USUAL_REMEMBERED = 128.0
#: The same for the share of its own faults.
FAULTS_REMEMBERED = 300.0
#: How many resolved failures it takes to forget most of those before.
RESOLVED_REMEMBERED = 1000.0
#: Before any failure is resolved, all count as if so many had been the engines'.
FIRST_ENGINES = 0.2
#: Most running requests that are set against new failures.
MOST_RUNNING = 256


class Culprit(Enum):
    """Whose fault it was that a request failed."""

    UNKNOWN = auto()
    ENGINES = auto()
    REQUEST = auto()


@dataclass(slots=True, eq=False)
class FailedRequest:
    """A request that engines failed at, as they remember it."""

    #: The id of its task.
    task: str = ""
    culprit: Culprit = Culprit.UNKNOWN
    #: By engine: its last try there.
    tries: dict[Place, "FailedTry"] = field(default_factory=dict)

    @property
    def is_own_fault(self) -> bool:
        """Whether the request itself is the cause."""
        return self.culprit is Culprit.REQUEST


class EngineThen(Enum):
    """What an engine was like when a request failed on it."""

    #: It has answered nothing since that began later.
    UNKNOWN = auto()
    #: It answered others: one that began soon afterwards was answered.
    WELL = auto()
    #: It failed at all that began for a while, at more than usual.
    FAILING = auto()


@dataclass(slots=True, eq=False)
class FailedTry:
    """One engine's failure at a request. Times are of the monotonic clock."""

    mark: FailedRequest
    #: When it failed.
    at: float
    #: An answer to a request that began after this tells what the engine was like.
    tells_from: float
    #: Whether the request had failed before.
    again: bool = False
    engine: EngineThen = EngineThen.UNKNOWN


class FaultShares:
    """One model's failures: how many proved to be engines' and requests' own."""

    def __init__(self, engines: float = 0.0, own: float = 0.0) -> None:
        #: Failed requests that were answered later.
        self.engines = engines
        #: Failed requests that failed again where later ones were answered.
        self.own = own

    def without(self, own: float) -> "FaultShares":
        """The same before so many were counted."""
        return FaultShares(self.engines, max(0.0, self.own - own))

    def add(self, engines: float = 0.0, own: float = 0.0) -> None:
        """Count resolved failures; those of long ago count less and less."""
        kept = 1.0 - (engines + max(0.0, own)) / RESOLVED_REMEMBERED
        self.engines = kept * self.engines + engines
        self.own = max(0.0, kept * self.own + own)

    def of_engines(self, good: int = 1, failed: int = 0) -> float:
        """The share of unresolved failures that are the engines'.

        Engines that failed at ``failed`` of so many requests at random fail as often
        when one is tried again: only the rest of what was theirs is answered then.

        >>> shares = FaultShares()
        >>> shares.of_engines()
        1.0
        >>> shares.add(own=19.8)
        >>> round(shares.of_engines(), 3)
        0.01
        """
        resolved = self.engines + self.own + FIRST_ENGINES
        answered = (self.engines + FIRST_ENGINES) / resolved
        rest = good - answered * failed
        return min(1.0, answered * good / rest) if rest > 0 else 1.0


@dataclass(slots=True)
class EngineRecord:
    """How the last requests to one incarnation of an engine ended."""

    place: Place
    #: Its last requests: None for one that ended well.
    recent: "deque[FailedRequest | None]" = field(
        default_factory=lambda: deque(maxlen=RECENT_REQUESTS)
    )
    #: Of the requests that ended well, when the one began that began last.
    answered_began: float = 0.0
    #: Requests that ended well since that told of what failed before.
    answered_since: int = 0
    #: Failures since it began what it answered last.
    new: "deque[FailedTry]" = field(default_factory=lambda: deque(maxlen=MOST_RUNNING))
    #: Requests that failed for the first time, here, since it answered one.
    news: int = 0
    #: The share of requests that was usual for it to fail at before these.
    usual_before: float = 0.0
    #: Requests of late that ended well; those of long ago count less and less.
    good: float = 0.0
    #: The same for those that failed while the engine worked, whosever fault it was.
    failed: float = 0.0
    #: The share of its last requests that proved to be its own faults.
    own_faults: float = 0.0

    def note_answer(self, began: float) -> None:
        """A request that began then has ended well."""
        self.recent.append(None)
        self.news = 0
        self.answered_since = min(self.answered_since + 1, MOST_RUNNING)
        self.good += 1.0 - self.good / USUAL_REMEMBERED
        self.own_faults -= self.own_faults / FAULTS_REMEMBERED
        if began > self.answered_began:
            self.answered_began = began
            if self.new:
                self._look_back(began)
            else:
                self.answered_since = 0
        self.failed -= self.failed / USUAL_REMEMBERED

    def note_probe(self, began: float) -> None:
        """It has answered what was only to tell how it does."""
        if began > self.answered_began:
            self.answered_began = began
            self.answered_since = min(self.answered_since + 1, MOST_RUNNING)
            self._look_back(began)

    def _look_back(self, began: float) -> None:
        """An answer to what began then tells of what failed before.

        Requests that had failed before are likely to fail again, and they come back in
        herds, as they wait for the same places: no number of them makes an engine one
        that fails at all.
        """
        told = [each for each in self.new if each.tells_from < began]
        left = [each for each in self.new if each.tells_from >= began]
        self.new.clear()
        self.new.extend(left)
        usual = self._usual()
        news = sum(not each.again for each in told)
        chance = likelihood(news, news + self.answered_since, usual)
        is_usual = news < 2 or chance >= LEAST_USUAL
        self.answered_since = 0
        for each in told:
            each.engine = EngineThen.WELL if is_usual else EngineThen.FAILING
            self.failed += 1.0 - self.failed / USUAL_REMEMBERED
            self.good -= self.good / USUAL_REMEMBERED

    def note_failure(
        self, mark: FailedRequest, began: float, now: float, again: bool = False
    ) -> FailedTry:
        """A try of this request has failed; ``again`` if it had failed before."""
        if not again:
            self.usual_before = self.usual_before if self.news else self._usual()
            self.news += 1
        tried = FailedTry(mark, now, max(began, self.answered_began), again)
        mark.tries[self.place] = tried
        self.new.append(tried)
        return tried

    def _usual(self) -> float:
        return (self.failed + 1) / (self.good + self.failed + 2)

    @property
    def is_told_by_probes(self) -> bool:
        """Whether one that answers probes answers requests, too, for all that is known.

        Not where it has answered none, or fails at all that are new.
        """
        usual = self.usual_before**self.news >= LEAST_PROBED
        return usual and self.good > 0

    def note_own_fault(self) -> None:
        """A request that failed here was answered elsewhere."""
        self.own_faults += 1.0 / FAULTS_REMEMBERED

    def then(self, mark: FailedRequest) -> EngineThen:
        """What the engine was like when the request failed here last."""
        last = mark.tries.get(self.place)
        return EngineThen.WELL if last is None else last.engine

    def find(self, task: str) -> FailedRequest | None:
        """What it remembers of a request that has come back."""
        return next((each for each in self.recent if each and each.task == task), None)

    def share_of_failures(
        self,
        besides: FailedRequest,
        shares: FaultShares,
        running: Collection[float] = (),
    ) -> float:
        """The share of other requests that it failed at of late, by its own fault.

        ``running`` says when each of the requests began that it has now.
        """
        others = [each for each in self.recent if each is not besides]
        failed = [each for each in others if each is not None]
        doubt = shares.of_engines(len(others) - len(failed), len(failed))
        faults = sum(self._weight(each, doubt) for each in failed)
        share = (faults + FIRST_SHARE) / (len(others) + 1)
        return max(share, self.own_faults, self._share_now(besides, running))

    def _share_now(self, besides: FailedRequest, running: Collection[float]) -> float:
        """The share that has failed since the last answer; 0 if that is as usual.

        Requests that run now have not failed so far.
        """
        new = len({each.mark for each in self.new} - {besides})
        if not new:
            return 0.0
        usual = (self.failed + FIRST_SHARE) / (self.good + self.failed + 1)
        since = sum(began > self.answered_began for began in running)
        trials = new + min(since, MOST_RUNNING)
        is_usual = likelihood(new, trials, usual) >= LEAST_USUAL
        return 0.0 if is_usual else new / (trials + 1)

    def _weight(self, mark: FailedRequest, doubt: float) -> float:
        then = self.then(mark)
        if mark.culprit is Culprit.ENGINES or then is EngineThen.FAILING:
            return 1.0
        return 0.0 if mark.is_own_fault and then is EngineThen.WELL else doubt

    def share_of_own_faults(
        self, besides: Iterable[FailedRequest], doubt: float
    ) -> float:
        """The share of its last requests that failed by their own fault.

        Of what is not known yet, ``doubt`` is the share of the engines' faults.
        """
        run = set(besides)
        others = [each for each in self.recent if each is None or each not in run]
        own = sum(
            1.0 - self._weight(each, doubt) for each in others if each is not None
        )
        return (own + FIRST_SHARE) / (len(others) + 1)


def likelihood(least: int, trials: int, share: float) -> float:
    """How likely at least so many of the trials fail, each by this chance.

    >>> likelihood(2, 2, 0.5), likelihood(0, 5, 0.1)
    (0.25, 1.0)
    """
    if least <= trials * share:
        return 1.0 if not least else 0.5
    rest = 1.0 - share
    return sum(
        math.comb(trials, number) * share**number * rest ** (trials - number)
        for number in range(least, trials + 1)
    )
