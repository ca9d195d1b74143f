"""Rates, waits and sums that the store does not hold as such. Pure."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from modelserver.inventory import Gpu
from modelserver.measured import Sample
from modelserver.store.fleet.api_keys import Used
from modelserver.values import Outcome

#: A rate is that of the last so many seconds.
RATE_SECONDS = 60.0
#: Looks at a queue are remembered for so many seconds.
REMEMBERED_SECONDS = 3600.0
#: Looks closer to each other than so many seconds count as one.
LOOK_SECONDS = 2.0


def answer_rate(samples: Sequence[Sample], now: float) -> float:
    """Answers a second of one engine in the last minute, from its last requests.

    Newest first. Where they do not reach back for a minute there were more, which are
    kept no longer: then the rate is that of the time that they cover.
    """
    recent = [each for each in samples if now - each.ended_at <= RATE_SECONDS]
    good = sum(each.outcome is Outcome.OK for each in recent)
    if not good:
        return 0.0
    reach = max(now - recent[-1].ended_at, 1.0)
    return good / (reach if len(recent) == len(samples) else RATE_SECONDS)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long requests of a model wait."""

    #: Answers a second, all engines together.
    rate: float = 0.0
    #: For how long the oldest has waited; None where nothing waits.
    oldest_seconds: float | None = None
    #: Whether it came before anybody looked, so that it has waited longer.
    is_older: bool = False
    #: Until what waits now is answered; None where nothing is.
    drain_seconds: float | None = None
    #: What waited at earlier looks, oldest first.
    backlogs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Look:
    """A queue at one time."""

    at: float
    backlog: int
    #: How many requests had come until then, counted from any number.
    arrived: int


@dataclass(slots=True)
class QueueHistory:
    """What was seen of a queue. Messages do not say when they were sent; this does.

    First in, first out: the oldest of Q requests came when all but the last Q that have
    come had.
    """

    _looks: deque[_Look] = field(default_factory=deque)

    def note(self, now: float, backlog: int, taken: int) -> None:
        """Remember a look; ``taken`` is how many were ever taken out of the queue."""
        look = _Look(now, backlog, backlog + taken)
        looks = self._looks
        if looks and looks[-1].arrived > look.arrived:
            # Some were cancelled, or a counter began anew.
            looks = deque(
                _Look(each.at, each.backlog, min(each.arrived, look.arrived))
                for each in looks
            )
        if len(looks) > 1 and now - looks[-2].at < LOOK_SECONDS:
            looks.pop()
        looks.append(look)
        while now - looks[0].at > REMEMBERED_SECONDS:
            looks.popleft()
        self._looks = looks

    def waiting(self, now: float, rate: float) -> Waiting:
        """How long requests wait, where so many are answered in a second."""
        if not self._looks:
            return Waiting(rate)
        last = self._looks[-1]
        backlogs = tuple(look.backlog for look in self._looks)
        if not last.backlog:
            return Waiting(rate, backlogs=backlogs)
        served = last.arrived - last.backlog
        came = next(look.at for look in self._looks if look.arrived > served)
        is_older = came == self._looks[0].at
        drain = last.backlog / rate if rate else None
        return Waiting(rate, now - came, is_older, drain, backlogs)


def ours_and_others(gpu: Gpu) -> tuple[int, int]:
    """Bytes of a GPU that our engines hold, and those that anybody else does."""
    ours = sum(each.used for each in gpu.processes if each.engine)
    return ours, max(0, gpu.used - ours)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a key used."""

    requests: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, books: Iterable[Used]) -> "KeyUse":
        """The sum of some pages of the books."""
        pages = list(books)
        tokens = sum(page.prompt_tokens + page.completion_tokens for page in pages)
        return cls(sum(page.requests for page in pages), tokens)
