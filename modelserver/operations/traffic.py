"""What an engine's last requests measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelserver.measured import Sample
from modelserver.values import Kind, Outcome


@dataclass(frozen=True, slots=True)
class Traffic:
    """What an engine's last requests that went well measured; None without any."""

    #: How many requests these are.
    samples: int = 0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    #: Generated tokens, for embeddings those of prompts, per second from the start of
    #: the first request to the end of the last.
    tokens_per_second: float | None = None


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that ``fraction`` of the values do not exceed.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def traffic(samples: Sequence[Sample], kind: Kind, incarnation: int) -> Traffic:
    """What the requests to this incarnation that went well measured of an engine.

    ``kind`` is what it is asked for. What was before its last start says nothing.
    """
    good = [
        sample
        for sample in samples
        if sample.outcome is Outcome.OK and sample.incarnation == incarnation
    ]
    if not good:
        return Traffic()
    seconds = [sample.seconds for sample in good]
    began = min(sample.ended_at - sample.seconds for sample in good)
    span = max(sample.ended_at for sample in good) - began
    embeds = kind is Kind.EMBEDDING
    tokens = sum(s.prompt_tokens if embeds else s.completion_tokens for s in good)
    return Traffic(
        samples=len(good),
        p50_seconds=percentile(seconds, 0.50),
        p95_seconds=percentile(seconds, 0.95),
        tokens_per_second=tokens / span if span > 0 else None,
    )
