"""What an engine's own metrics say, in SGLang's and vLLM's names. Pure."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelserver.engine_client import count_tokens

#: The names of either engine for requests that it computes.
_RUNNING = (b"num_running_reqs", b"num_requests_running")
#: For requests that wait in it.
_WAITING = (b"num_queue_reqs", b"num_requests_waiting")
#: For the part of its KV cache that is used, from 0 to 1.
_KV_USE = (b"token_usage", b"kv_cache_usage_perc")
#: For the requests that it gave up for want of cache, so far.
_RETRACTED = (b"num_retracted_requests_total", b"num_preemptions_total")
#: For the histogram of times between two tokens.
_ITL = b"inter_token_latency_seconds_bucket"
_LINES = re.compile(
    rb"^(?:sglang|vllm):(%s)(?:\{([^}]*)\})? ([0-9.eE+-]+)$"
    % b"|".join((*_RUNNING, *_WAITING, *_KV_USE, *_RETRACTED, _ITL)),
    re.M,
)
#: SGLang counts its requests once more by priority.
_PRIORITY = re.compile(rb'priority="[^"]')
_BOUND = re.compile(rb'le="([^"]+)"')


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """One look at an engine's metrics."""

    #: Requests that it computes.
    running: int = 0
    #: Requests that wait in it.
    waiting: int = 0
    #: The part of its KV cache that is used, from 0 to 1.
    kv_use: float = 0.0
    #: Requests that it gave up for want of cache, so far.
    retracted: int = 0
    #: A sum that grows with each token, None without such a counter.
    tokens: float | None = None
    #: Times between two tokens: how many so far were no longer than each bound, in
    #: seconds.
    gaps: Mapping[float, float] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """All requests that it has."""
        return self.running + self.waiting


def read_metrics(content: bytes) -> MetricsReading | None:
    """What a page of metrics says, None where it has no metrics of an engine."""
    lines = [line for line in _LINES.findall(content) if not _PRIORITY.search(line[1])]
    if not lines:
        return None
    sums: defaultdict[bytes, float] = defaultdict(float)
    gaps: defaultdict[float, float] = defaultdict(float)
    kv_use = 0.0
    for name, labels, value in lines:
        if name == _ITL:
            bound = _BOUND.search(labels)
            gaps[float(bound[1]) if bound else float("inf")] += float(value)
        elif name in _KV_USE:
            kv_use = max(kv_use, float(value))  # The fullest of its replicas.
        else:
            sums[name] += float(value)
    return MetricsReading(
        running=int(sum(sums[name] for name in _RUNNING)),
        waiting=int(sum(sums[name] for name in _WAITING)),
        kv_use=kv_use,
        retracted=int(sum(sums[name] for name in _RETRACTED)),
        tokens=count_tokens(content),
        gaps=dict(gaps),
    )


def median_gap(before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """The median of what a histogram counted between two looks, 0 for nothing.

    It is interpolated within its bucket; of the last bucket, which is unbounded, it is
    the lower bound.

    >>> round(median_gap({0.1: 5, 0.2: 5}, {0.1: 5, 0.2: 15}), 3)
    0.15
    """
    new = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = max(new.values(), default=0.0)
    if total <= 0 or min(new.values()) < 0:
        return 0.0
    lower, below = 0.0, 0.0
    for bound, count in new.items():
        if count >= total / 2 and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (total / 2 - below) / (count - below)
        lower, below = bound, count
    return lower
