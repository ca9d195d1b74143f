"""How much of its GPUs an engine is told to take, in its own flag's meaning.

What is shared out is ``Place.promised_bytes`` of each GPU, or all that is free.
"""

import math

from launcher.engine_types.base import Place
from modelserver.errors import ConfigurationError
from modelserver.inventory import GIB, gib

#: Share of an engine's memory that its flag does not count. SGLang: activations, CUDA
#: graphs and the CUDA context; it keeps 10 GiB of an 80 GiB GPU by itself.
SGLANG_MARGIN_SHARE = 0.12
#: The same for vLLM, whose flag counts activations: the CUDA context, and the graphs.
VLLM_MARGIN_SHARE = 0.08
#: The margin is no less: a CUDA context and its libraries take about 1 GiB.
LEAST_MARGIN = 2 * GIB
#: With less than this for weights and cache no engine is worth a start.
LEAST_USE = GIB // 2


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
    """Bytes of each GPU that the flag shall stand for."""
    share = place.free_bytes
    if place.promised_bytes:
        share = min(place.promised_bytes, share)
    use = share - max(LEAST_MARGIN, margin_share * share)
    if use < LEAST_USE:
        least = (LEAST_MARGIN + LEAST_USE) / GIB
        raise ConfigurationError(
            f"{gib(share)} of a GPU are too little for an engine, which needs "
            f"{least:g} GiB and its weights; raise the model's gpu_memory_gib"
        )
    return use


def _floor(fraction: float) -> float:
    """Down to three digits, so that it never stands for more than there is."""
    return math.floor(fraction * 1000 + 1e-6) / 1000
