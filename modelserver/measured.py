"""What is measured of engines."""

from dataclasses import dataclass

from modelserver.values import Outcome


@dataclass(frozen=True, slots=True)
class Sample:
    """One request to one engine, as recorded whatever its outcome."""

    engine: str
    incarnation: int
    #: When it ended, in seconds of the store's clock.
    ended_at: float
    #: How long it took.
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    #: How many other requests the engine had when it began.
    inflight_start: int
    #: How many other requests the engine had when it ended.
    inflight_end: int
    #: Prompt tokens that the engine admitted meanwhile, its own included.
    prompt_admitted: int
    outcome: Outcome
    #: Whether it was answered with a text that ``max_tokens`` cut off; only counted.
    cut_off: bool = False
    #: How long it had waited before any engine was asked, None for a later attempt or
    #: where that is not known; only counted.
    waited_seconds: float | None = None
    #: How long it took from its submission to the first token of its stream, None
    #: likewise; only counted.
    first_token_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What one worker, or all of them, have in flight on one engine."""

    #: Requests in flight.
    inflight: int
    #: The age of the oldest request.
    oldest_seconds: float
    #: The time since a request last finished well, or since the engine was first seen.
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """An engine's own account of itself, of the last few seconds."""

    #: Requests that it has not begun, or gave up meanwhile for want of cache.
    waiting: int = 0
    #: The share of its KV cache that is in use, 0 to 1.
    kv_use: float = 0.0
    #: The median time between two tokens of a request, 0 where unknown.
    itl_seconds: float = 0.0
    #: When its token counter last moved by the store's clock, 0 without a counter.
    tokens_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Canary:
    """One small request of 64 + 32 tokens to an empty engine, for how long it takes."""

    engine: str
    incarnation: int
    #: When it was sent, in seconds of the store's clock.
    at: float
    seconds: float
    #: Whether ``seconds`` is the median of eight that were sent at once.
    loaded: bool = False
    #: The number by which control asked, 0 where the launcher sent it unasked.
    round: int = 0
