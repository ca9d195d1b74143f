"""What came of a run's rows, counted and timed."""

import heapq
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelserver.messaging.answers import CUT_OFF, tokens
from modelserver.runs.answer import reason_of
from modelserver.runs.files.problems import shown
from modelserver.runs.rows import Answered, RowError

#: Rates are those of the last so many seconds.
RATE_SECONDS = 10.0
#: So many of the slowest and of the longest rows are told.
MOST_TOLD = 5


@dataclass(slots=True)
class ModelTally:
    """The rows of one model."""

    answered: int = 0
    failed: int = 0
    #: Answers that ``max_tokens`` or the context cut off.
    cut_off: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def done(self) -> int:
        """Rows that are settled."""
        return self.answered + self.failed


@dataclass(slots=True)
class Tally:
    """All rows of this session, and those of earlier ones by number alone."""

    #: Rows of the run.
    total: int
    #: Answers of earlier sessions.
    answered_before: int = 0
    #: Failures of earlier sessions.
    failed_before: int = 0
    models: dict[str, ModelTally] = field(default_factory=dict)
    #: By engine: how many answers it gave.
    engines: Counter[str] = field(default_factory=Counter)
    #: By engine: prompt tokens.
    engines_in: Counter[str] = field(default_factory=Counter)
    #: By engine: completion tokens.
    engines_out: Counter[str] = field(default_factory=Counter)
    #: Attempts of answered rows beyond the first of each.
    retries: int = 0
    #: Answers that were kept from identical rows; engines did nothing for them.
    cache_hits: int = 0
    #: By whose fault it is: how many rows failed.
    faults: Counter[str] = field(default_factory=Counter)
    #: One error of each kind of fault.
    examples: dict[str, str] = field(default_factory=dict)
    #: Seconds on an engine and custom_id.
    slowest: list[tuple[float, str]] = field(default_factory=list)
    #: Completion tokens and custom_id.
    longest: list[tuple[int, str]] = field(default_factory=list)
    #: Time, rows done, prompt and completion tokens so far.
    _marks: deque[tuple[float, int, int, int]] = field(default_factory=deque)

    def answer(self, model: str, custom_id: str, answered: Answered) -> None:
        """One more answer."""
        body: Mapping[str, Any] = answered.value
        prompt, completion = tokens(body)
        tally = self.models.setdefault(model, ModelTally())
        tally.answered += 1
        if answered.cached:
            self.cache_hits += 1
            return
        tally.prompt_tokens += prompt
        tally.completion_tokens += completion or 0
        choices = body.get("choices") or ()
        tally.cut_off += any(reason_of(choice) == CUT_OFF for choice in choices)
        engine = str(body.get("engine") or "?")
        self.engines[engine] += 1
        self.engines_in[engine] += prompt
        self.engines_out[engine] += completion or 0
        self.retries += int(body.get("attempts") or 1) - 1
        _keep(self.slowest, (float(body.get("seconds") or 0.0), custom_id))
        _keep(self.longest, (completion or 0, custom_id))

    def error(self, model: str, custom_id: str | None, error: RowError) -> None:
        """One more row without an answer."""
        self.models.setdefault(model, ModelTally()).failed += 1
        self.faults[error.fault] += 1
        name = "" if custom_id is None else f"{shown(custom_id)}: "
        self.examples.setdefault(error.fault, f"{name}{error.message}")

    def mark(self, now: float) -> None:
        """Note where it stands, for rates."""
        found = (now, self.done_now, self.prompt_tokens, self.completion_tokens)
        self._marks.append(found)
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_SECONDS:
            self._marks.popleft()

    def take_rates(self, seconds: float, done: tuple[int, int, int]) -> None:
        """Take over what another process did in that time, as in ``rates``."""
        self._marks = deque([(0.0, 0, 0, 0), (seconds, *done)])

    @property
    def rates(self) -> tuple[float, float, float]:
        """Rows, prompt tokens and completion tokens a second, of late."""
        if len(self._marks) < 2:
            return 0.0, 0.0, 0.0
        first, last = self._marks[0], self._marks[-1]
        seconds = max(last[0] - first[0], 1e-6)
        rows, prompt, completion = (
            (last[place] - first[place]) / seconds for place in (1, 2, 3)
        )
        return rows, prompt, completion

    @property
    def eta_seconds(self) -> float | None:
        """When the rest will be done at the rate of late, None where it stands."""
        rate = self.rates[0]
        return self.left / rate if rate else None

    @property
    def done_now(self) -> int:
        """Rows of this session."""
        return sum(tally.done for tally in self.models.values())

    @property
    def answered(self) -> int:
        """Answers, of earlier sessions too."""
        now = sum(tally.answered for tally in self.models.values())
        return self.answered_before + now

    @property
    def failed(self) -> int:
        """Rows without an answer, of earlier sessions too."""
        return self.failed_before + sum(each.failed for each in self.models.values())

    @property
    def left(self) -> int:
        """Rows that are not settled."""
        return self.total - self.answered - self.failed

    @property
    def cut_off(self) -> int:
        """Answers of this session that were cut off."""
        return sum(tally.cut_off for tally in self.models.values())

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of this session."""
        return sum(tally.prompt_tokens for tally in self.models.values())

    @property
    def completion_tokens(self) -> int:
        """Completion tokens of this session."""
        return sum(tally.completion_tokens for tally in self.models.values())


def _keep(largest: list[Any], value: Any) -> None:
    heapq.heappush(largest, value)
    if len(largest) > MOST_TOLD:
        heapq.heappop(largest)
