"""Continuous batching with chunked prefill, as values: no clock, no sockets.

Each turn is two calls: `plan` says how long the next step takes, and `advance`
applies it. Requests may come and go between the two.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepCosts:
    """What one step costs: step + batch * running + prefill * prefilled tokens."""

    step_seconds: float
    batch_seconds: float = 0.0
    prefill_seconds: float = 0.0
    max_running: int = 64
    #: Prompt tokens that one step takes in, over all requests.
    chunk_tokens: int = 2048

    def seconds(self, running: int, prefill_tokens: int) -> float:
        return (
            self.step_seconds
            + self.batch_seconds * running
            + self.prefill_seconds * prefill_tokens
        )


@dataclass(frozen=True, slots=True)
class Job:
    """What a request asks of the batch; an embedding has no tokens to generate.

    `width` is the number of sequences generated side by side.
    """

    prompt_tokens: int
    max_tokens: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """A planned step: its length and the prompt tokens each request takes in."""

    seconds: float
    prefill: dict[int, int]
    running: frozenset[int]


@dataclass(slots=True)
class _Progress:
    job: Job
    prefilled: int = 0
    generated: int = 0

    @property
    def finished(self) -> bool:
        if self.prefilled < self.job.prompt_tokens:
            return False
        return self.generated >= self.job.max_tokens

    @property
    def held_tokens(self) -> int:
        return self.prefilled + self.generated * self.job.width


@dataclass(slots=True)
class Batch:
    """The requests that run and those that wait, first come first served."""

    costs: StepCosts
    #: Tokens generated since the start.
    generated: int = 0
    _running: dict[int, _Progress] = field(default_factory=dict)
    _waiting: dict[int, _Progress] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return sum(progress.job.width for progress in self._running.values())

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def held_tokens(self) -> int:
        """Tokens whose keys and values the batch keeps."""
        return sum(progress.held_tokens for progress in self._running.values())

    def add(self, key: int, job: Job) -> None:
        self._waiting[key] = _Progress(job)

    def drop(self, key: int) -> int:
        """Forget a request; return the tokens each of its sequences had."""
        progress = self._running.pop(key, None) or self._waiting.pop(key, None)
        return progress.generated if progress else 0

    def tokens(self, key: int) -> int:
        """The tokens that a job has so far."""
        progress = self._running.get(key)
        return progress.generated if progress else 0

    def plan(self) -> Step:
        """Admit what fits and say what the next step does and how long it takes."""
        self._admit()
        left = self.costs.chunk_tokens
        prefill: dict[int, int] = {}
        for key, progress in self._running.items():
            chunk = min(left, progress.job.prompt_tokens - progress.prefilled)
            if chunk > 0:
                prefill[key] = chunk
                left -= chunk
        seconds = self.costs.seconds(self.running, self.costs.chunk_tokens - left)
        return Step(seconds, prefill, frozenset(self._running))

    def advance(self, step: Step) -> list[int]:
        """Apply a step; return the requests that it finished.

        The step that takes in the last of a prompt gives its first token too.
        """
        finished = []
        for key, progress in self._running.items():
            if key not in step.running:
                continue
            progress.prefilled += step.prefill.get(key, 0)
            if progress.prefilled < progress.job.prompt_tokens:
                continue
            if progress.generated < progress.job.max_tokens:
                progress.generated += 1
                self.generated += progress.job.width
            if progress.finished:
                finished.append(key)
        for key in finished:
            del self._running[key]
        return finished

    def _admit(self) -> None:
        running = self.running
        for key, progress in list(self._waiting.items()):
            width = progress.job.width
            # A request wider than the whole batch still runs, alone.
            if running and running + width > self.costs.max_running:
                break
            self._running[key] = self._waiting.pop(key)
            running += width
