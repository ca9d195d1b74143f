"""How many requests an engine takes at once, by its own account. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

from modelserver.inventory import GIB
from modelserver.values import Kind

#: Tokens of a request, prompt and answer, by which a cache is counted in requests: of
#: a short one, since too many requests queue in the engine, and the limit falls.
TOKENS_PER_REQUEST = 256
#: The most for an embedding engine, which has no answers to write side by side.
MOST_EMBEDDING = 256
#: vLLM's own ``--max-num-seqs``, which it tells nobody, on GPUs of 70 GiB and more ...
VLLM_MOST_LARGE = 1024
#: ... and on smaller ones.
VLLM_MOST = 256
#: The size of the smallest large GPU.
LARGE_BYTES = 70 * GIB
#: vLLM's account of its cache, one for each replica.
_CACHE = re.compile(rb"^vllm:cache_config_info\{([^}]*)\}", re.M)
_LABEL = re.compile(rb'(\w+)="([^"]*)"')


def vllm_running(total_bytes: int, extra_args: tuple[str, ...]) -> int:
    """What a replica of vLLM takes at once, by what it is told or else by itself.

    >>> vllm_running(80 * GIB, ()), vllm_running(24 * GIB, ())
    (1024, 256)
    >>> vllm_running(80 * GIB, ("--max-num-seqs=512",))
    512
    """
    words = " ".join(extra_args).replace("_", "-")
    told = re.findall(r"--max-num-seqs[ =](\d+)", words)
    if told:
        return int(told[-1])
    return VLLM_MOST_LARGE if total_bytes >= LARGE_BYTES else VLLM_MOST


def sglang_capacity(page: bytes, kind: Kind) -> int:
    """What ``/server_info`` says of all replicas, 0 where it does not say it."""
    try:
        info: Any = json.loads(page)
        states = [state for state in info["internal_states"] if state]
        running = sum(
            state["effective_max_running_requests_per_dp"] for state in states
        )
        return _bounded(running, info["max_total_num_tokens"] * len(states), kind)
    except (ValueError, LookupError, TypeError):
        return 0


def vllm_capacity(page: bytes, running: int, kind: Kind) -> int:
    """What its metrics say of its cache, and it was told to run at once."""
    accounts = [dict(_LABEL.findall(each)) for each in _CACHE.findall(page)]
    return _bounded(running, sum(map(_cache_tokens, accounts)), kind)


def _cache_tokens(labels: Mapping[bytes, bytes]) -> int:
    size, blocks, tokens = (
        int(value) if value.isdigit() else 0
        for value in (
            labels.get(name, b"")
            for name in (b"block_size", b"num_gpu_blocks", b"kv_cache_size_tokens")
        )
    )
    return tokens or size * blocks


def _bounded(running: int, cache_tokens: int, kind: Kind) -> int:
    if kind is Kind.EMBEDDING:
        return min(running, MOST_EMBEDDING)
    if cache_tokens:
        running = min(running, max(1, cache_tokens // TOKENS_PER_REQUEST))
    return running
