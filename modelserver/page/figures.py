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
    #: For how long the oldest has waited; None where nothing waits, or says so.
    oldest_seconds: float | None = None
    #: Until what waits now is answered; None where nothing is.
    drain_seconds: float | None = None
    #: What waited at earlier looks, oldest first.
    backlogs: tuple[int, ...] = ()


@dataclass(slots=True)
class QueueHistory:
    """What waited in a queue at each look of the last hour."""

    #: When it was, and how many requests waited; the oldest first.
    _looks: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, now: float, backlog: int) -> None:
        """Remember a look."""
        looks = self._looks
        if len(looks) > 1 and now - looks[-2][0] < LOOK_SECONDS:
            looks.pop()
        looks.append((now, backlog))
        while now - looks[0][0] > REMEMBERED_SECONDS:
            looks.popleft()

    def waiting(self, now: float, rate: float, since: float | None) -> Waiting:
        """How long requests wait, where so many are answered in a second.

        ``since`` is when the oldest was sent, None where nothing says so.
        """
        backlogs = tuple(backlog for _, backlog in self._looks)
        oldest = None if since is None else max(0.0, now - since)
        waits = backlogs[-1] if backlogs else 0
        return Waiting(rate, oldest, waits / rate if waits and rate else None, backlogs)


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
