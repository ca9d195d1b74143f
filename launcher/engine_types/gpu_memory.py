"""How much of its GPUs' memory an engine is told to take, by its own flag.

It may have ``Place.promised_bytes`` of each GPU, or all that is free.
"""

import math

from launcher.engine_types.base import Place
from modelserver.errors import ConfigurationError
from modelserver.inventory import GIB, gib

#: Share of an engine's memory that SGLang's flag does not count: activations, CUDA
#: graphs and the CUDA context. By itself SGLang keeps 10 GiB of an 80 GiB GPU for them.
SGLANG_MARGIN_SHARE = 0.12
#: Share that vLLM's flag does not count: CUDA graphs and the CUDA context.
VLLM_MARGIN_SHARE = 0.08
#: Bytes that are kept for these at least: a CUDA context takes about 1 GiB.
LEAST_MARGIN_BYTES = 2 * GIB
#: Bytes for weights and cache without which no engine is started.
LEAST_USE_BYTES = GIB // 2


def sglang_fraction(place: Place) -> float:
    """``--mem-fraction-static``: weights and cache as a share of the *free* memory.

    SGLang takes what is free before it loads, by the GPU of its group that has least,
    and keeps ``1 - fraction`` of it clear (``_profile_available_bytes``). What other
    processes hold is not in it. Raises ConfigurationError where too little is left.
    """
    if not place.free_bytes:
        return round(1 - SGLANG_MARGIN_SHARE, 3)
    return _floor(_use(place, SGLANG_MARGIN_SHARE) / place.free_bytes)


def vllm_fraction(place: Place) -> float:
    """``--gpu-memory-utilization``: the whole engine as a share of the *total* memory.

    vLLM refuses to start where that share is not free. Raises ConfigurationError where
    too little is left.
    """
    if not place.total_bytes:
        return round(1 - VLLM_MARGIN_SHARE, 3)
    return _floor(_use(place, VLLM_MARGIN_SHARE) / place.total_bytes)


def _use(place: Place, margin_share: float) -> float:
    """Bytes of each GPU that the flag stands for."""
    share = place.free_bytes
    if place.promised_bytes:
        share = min(place.promised_bytes, share)
    use = share - max(LEAST_MARGIN_BYTES, margin_share * share)
    if use < LEAST_USE_BYTES:
        least = (LEAST_MARGIN_BYTES + LEAST_USE_BYTES) / GIB
        raise ConfigurationError(
            f"{gib(share)} of a GPU are too little for an engine, which needs "
            f"{least:g} GiB and its weights; raise the model's gpu_memory_gib"
        )
    return use


def _floor(fraction: float) -> float:
    """Down to three digits, so that it never stands for more than there is."""
    return math.floor(fraction * 1000 + 1e-6) / 1000
