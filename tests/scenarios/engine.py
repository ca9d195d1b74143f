"""A simulated engine: continuous batching with chunked prefill.

A step takes ``factor * (8 ms + 0.15 ms * batch + a KV term + 0.09 ms * prefill token)``
and gives every running request a token. While nothing changes, many steps are one
event.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any

#: Seconds of an empty step.
STEP_SECONDS = 0.008
#: Seconds that each running request adds to a step.
BATCH_SECONDS = 0.00015
#: Seconds that each token in the KV cache adds to a step.
KV_SECONDS = 3e-8
#: Seconds that each prefilled prompt token adds to a step.
PREFILL_SECONDS = 0.00009
#: The most prompt tokens that a step prefills.
CHUNK = 2048
#: The tokens that the KV cache holds.
KV_TOKENS = 400_000
#: Prompt tokens of a canary.
CANARY_PROMPT = 64
#: Completion tokens of a canary.
CANARY_COMPLETION = 32
#: The number of canaries that run together in a loaded one.
CANARY_CROWD = 8
#: The standard deviation of a canary's seconds, as a share of them.
CANARY_NOISE = 0.02


@dataclass(slots=True)
class Request:
    """One task of a pipeline, and its present attempt."""

    id: int
    model: str
    prompt: int
    cached: int
    completion: int
    sent: float = 0.0
    began: float = 0.0
    inflight: int = 0
    admitted: int = 0
    attempts: int = 0
    done: int = 0
    #: Whether this attempt fails.
    fails: bool = False
    #: Whether every attempt fails.
    poisonous: bool = False
    #: Whether it fails after a full generation, not at its first token.
    fails_late: bool = False
    #: The host whose worker had it last, "" for none.
    host: str = ""
    #: By engine: when it failed there last.
    failed_at: dict[str, float] = field(default_factory=dict)
    #: Engines on which failing speaks against the request.
    against: list[Any] = field(default_factory=list)
    #: Engines that its failing counts against, with their incarnations, and when.
    blamed: list[tuple[str, int, float]] = field(default_factory=list)
    own_fault: bool = False
    todo: int = 0
    times: float = 1.0


@dataclass(slots=True)
class Fault:
    """What is wrong with an engine."""

    #: How many times longer its steps take.
    factor: float = 1.0
    #: The batch from which on they do.
    from_batch: int = 0
    #: The prompt tokens from which on they do, while it has such a request.
    while_prompt: int = 0
    #: Seconds over which ``factor`` grows.
    ramp_seconds: float = 0.0
    began: float = 0.0
    #: The least tokens of the prompts, and of the answers, that take ``factor`` times
    #: as long; where one is given, other requests are well.
    from_prompt: int = 0
    from_completion: int = 0
    #: The engine stands still for so many seconds ...
    stutter: float = 0.0
    #: ... of every so many.
    stutter_every: float = 60.0
    hang: bool = False
    #: The share of requests that fail.
    errors: float = 0.0
    #: Whether a relaunch does not remove it.
    sticky: bool = False

    def times(self, prompt: int, completion: int) -> float:
        """How many times longer a request takes for what it is."""
        by_kind = self.from_prompt or self.from_completion
        strikes = prompt >= self.from_prompt and completion >= self.from_completion
        return self.factor if by_kind and strikes else 1.0

    def awake(self, since: float, until: float) -> float:
        """The seconds of this time in which the engine does not stand still."""
        return self._awake_by(until) - self._awake_by(since)

    def _awake_by(self, at: float) -> float:
        periods, rest = divmod(at - self.began, self.stutter_every)
        awake = periods * (self.stutter_every - self.stutter)
        return awake + max(0.0, rest - self.stutter)

    def after(self, since: float, seconds: float) -> float:
        """When it has been awake for so many seconds more."""
        if not self.stutter:
            return since + seconds
        awake = self._awake_by(since) + seconds
        periods, rest = divmod(awake, self.stutter_every - self.stutter)
        at = self.began + periods * self.stutter_every + self.stutter + rest
        return max(since, at)


@dataclass(slots=True)
class SimEngine:
    """One engine's process: what it runs, how far it is, what it would report."""

    id: str
    model: str
    speed: float
    random: Random
    fault: Fault = field(default_factory=Fault)
    drift: float = 1.0
    #: The share of each prompt that it has cached; None for what the request says.
    cached_share: float | None = None
    #: The prompt tokens at which prefill takes twice as long for each; 0 for never.
    quadratic: float = 0.0
    at: float = 0.0
    steps: float = 0.0
    context: float = 0.0
    running: list[tuple[float, int, Request]] = field(default_factory=list)
    prefill: deque[Request] = field(default_factory=deque)
    waiting: deque[Request] = field(default_factory=deque)
    chunk: int = 0
    chunk_ends: float = 0.0
    tokens_at: float = 0.0
    paces: list[tuple[float, float]] = field(default_factory=list)
    history: list[tuple[float, float]] | None = None

    def factor(self) -> float:
        """How many times slower than its type its steps are now."""
        fault = self.fault
        factor = fault.factor
        if fault.from_prompt or fault.from_completion:
            factor = 1.0
        if fault.ramp_seconds:
            grown = min(1.0, max(0.0, self.at - fault.began) / fault.ramp_seconds)
            factor = 1 + (factor - 1) * grown
        if len(self.running) < fault.from_batch or self._longest() < fault.while_prompt:
            factor = 1.0
        return self.speed * self.drift * factor

    def _longest(self) -> int:
        """The tokens of its longest prompt, if a fault depends on that."""
        if not self.fault.while_prompt:
            return 0
        prompts = [each.prompt for _, _, each in self.running if each]
        return max(prompts + [each.prompt for each in self.prefill], default=0)

    def pace(self) -> float:
        """Seconds of a step without prefill."""
        crowd = BATCH_SECONDS * len(self.running) + KV_SECONDS * self.context
        return self.factor() * (STEP_SECONDS + crowd)

    def advance(self, now: float) -> None:
        """Let it decode until now; nothing finishes in between."""
        if self.running and not self.chunk and not self.fault.hang and now > self.at:
            pace = self.pace()
            steps = self.fault.awake(self.at, now) / pace
            self.steps += steps
            self.context += steps * len(self.running)
            self.paces.append((pace, steps * len(self.running)))
            self.tokens_at = self._last_awake(now)
        self.at = now

    def _last_awake(self, now: float) -> float:
        fault = self.fault
        into = (now - fault.began) % fault.stutter_every
        return max(self.tokens_at, now - into) if into < fault.stutter else now

    def submit(self, request: Request, now: float) -> None:
        """Take a request."""
        cached = request.cached
        if self.cached_share is not None:
            cached = int(self.cached_share * request.prompt)
        request.times = self.fault.times(request.prompt, request.completion)
        alone = max(1, request.prompt - cached)
        longer = 1 + request.prompt / self.quadratic if self.quadratic else 1.0
        request.todo = max(1, int(alone * longer * request.times))
        if not self.chunk:
            self.advance(now)
        self.waiting.append(request)
        if not self.chunk:
            self._begin_chunk()

    def _begin_chunk(self) -> None:
        """Start a step that prefills, if there is something to prefill."""
        while self.waiting and (
            self.context + self.waiting[0].prompt < KV_TOKENS or not self.running
        ):
            request = self.waiting.popleft()
            self.context += request.prompt
            self.prefill.append(request)
        self.chunk = min(CHUNK, sum(request.todo for request in self.prefill))
        if self.chunk:
            extra = self.factor() * PREFILL_SECONDS * self.chunk
            self.chunk_ends = self.fault.after(self.at, self.pace() + extra)

    def next_event(self) -> float:
        """When something changes next by itself."""
        if self.fault.hang:
            return float("inf")
        if self.chunk:
            return self.chunk_ends
        if self.running:
            work = max(0.0, self.running[0][0] - self.steps) * self.pace()
            return self.fault.after(self.at, work)
        return float("inf")

    def happen(self, now: float) -> list[Request]:
        """Go to the next event, which is now; returns the requests that finished."""
        finished = []
        if self.chunk:
            if self.running:
                self.paces.append((now - self.at, float(len(self.running))))
            self.at, self.tokens_at = now, now
            self.steps += 1
            self.context += len(self.running)
            finished += self._end_chunk()
        else:
            target = self.running[0][0]
            self.advance(now)
            self.steps = max(self.steps, target)
        while self.running and self.running[0][0] <= self.steps + 1e-6:
            request = heappop(self.running)[2]
            self.context -= request.prompt + request.completion * request.times
            finished.append(request)
        if not self.running and not self.prefill:
            self.context = 0.0
        self._begin_chunk()
        return finished

    def _end_chunk(self) -> list[Request]:
        left, failed = self.chunk, []
        while left and self.prefill:
            request = self.prefill[0]
            part = min(left, request.todo)
            request.todo -= part
            left -= part
            if request.todo:
                break
            self.prefill.popleft()
            if request.fails and not request.fails_late:
                self.context -= request.prompt
                failed.append(request)
            else:
                ends = self.steps + request.completion * request.times
                heappush(self.running, (ends, request.id, request))
        self.chunk = 0
        return failed

    def clear(self) -> list[Request]:
        """Abort everything; returns what it had."""
        had = [each[2] for each in self.running] + [*self.prefill, *self.waiting]
        self.running, self.chunk, self.context = [], 0, 0.0
        self.prefill.clear()
        self.waiting.clear()
        return had

    def drop(self, request: Request) -> None:
        """Abort one request that it has begun to answer."""
        for entry in self.running:
            if entry[2] is request:
                left = entry[0] - self.steps
                self.context -= request.prompt + request.completion - left
                self.running.remove(entry)
                heapify(self.running)
                return

    def canary(self, crowd: int) -> float:
        """Seconds of a canary among ``crowd`` of them on the empty engine."""
        fault = self.fault
        before, self.running = self.running, [(0.0, 0, None)] * crowd  # type: ignore[list-item]
        step = self.factor() * (STEP_SECONDS + BATCH_SECONDS * crowd)
        prefill = self.factor() * PREFILL_SECONDS * CANARY_PROMPT * crowd
        self.running = before
        work = prefill + CANARY_COMPLETION * step
        seconds = fault.after(self.at, work) - self.at
        return float("inf") if fault.hang else seconds * self._noise()

    def _noise(self) -> float:
        return max(0.5, self.random.gauss(1.0, CANARY_NOISE))

    def median_pace(self) -> float:
        """The median time between two tokens since it was asked last, in seconds."""
        paces, self.paces = self.paces, []
        if self.history is not None:
            self.history += paces
        return quantile(paces, 0.5)

    def slowest_pace(self, share: float) -> float:
        """The quantile of the times between two tokens in its history."""
        return quantile(self.history or [], share)


def quantile(weighted: list[tuple[float, float]], share: float) -> float:
    """The value below which this share of the weight is; 0 of nothing.

    >>> quantile([(0.2, 1.0), (0.1, 9.0)], 0.5)
    0.1
    """
    whole, seen = sum(weight for _, weight in weighted), 0.0
    for value, weight in sorted(weighted):
        seen += weight
        if seen >= share * whole:
            return value
    return 0.0
