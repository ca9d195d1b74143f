"""The only owner of NVML: which GPUs there are, and which of them are free."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pynvml

from modelserver.inventory import GIB, Gpu, GpuProcess

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: A GPU with less than this share of its memory free is somebody's.
FREE_SHARE = 0.85


def inventory() -> tuple[Gpu, ...]:
    """The GPUs of this host, none where there is no driver."""
    with _nvml() as there:
        if not there:
            return ()
        count = _field(pynvml.nvmlDeviceGetCount, 0)
        return tuple(_read(index) for index in range(count))


@contextmanager
def _nvml() -> Iterator[bool]:
    # Opened for each reading: a driver may come, go or be reset meanwhile.
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _read(index: int) -> Gpu:
    """One GPU; what cannot be read is 0 or empty, so a lost GPU is never free."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        _log.warning("gpu %d cannot be read: %s", index, error)
        return Gpu(index, "", "?")
    memory = _field(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle), None)
    running: list[Any] = _field(
        lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle), []
    )
    return Gpu(
        index=index,
        uuid=_field(lambda: str(pynvml.nvmlDeviceGetUUID(handle)), ""),
        name=_field(lambda: str(pynvml.nvmlDeviceGetName(handle)), "?"),
        total=int(memory.total) if memory else 0,
        used=int(memory.used) if memory else 0,
        free=int(memory.free) if memory else 0,
        processes=tuple(GpuProcess(int(process.pid)) for process in running),
    )


def _field(read: Callable[[], _T], missing: _T) -> _T:
    try:
        return read()
    except pynvml.NVMLError:
        return missing


def choose(
    gpus: Sequence[Gpu],
    count: int,
    promised: Collection[int] = (),
    pinned: Sequence[int] = (),
) -> tuple[Gpu, ...] | str:
    """Free GPUs for an engine, the emptiest first; or why there are not enough.

    ``promised`` are the indexes that this launcher has given to other engines, which
    may not have filled them yet. Memory that anybody's process holds counts.
    """
    if pinned:
        return _take_pinned(gpus, promised, pinned)
    if count == 0:
        return ()
    if len(gpus) < count:
        return f"needs {count} GPUs, and this host has {len(gpus)}"
    free = [gpu for gpu in gpus if not _why_not(gpu, promised)]
    if len(free) < count:
        reasons = "; ".join(filter(None, (_why_not(gpu, promised) for gpu in gpus)))
        return f"needs {count} free GPUs, and {len(free)} are free: {reasons}"
    free.sort(key=lambda gpu: (-gpu.free_share, gpu.index))
    return tuple(sorted(free[:count], key=lambda gpu: gpu.index))


def _take_pinned(
    gpus: Sequence[Gpu], promised: Collection[int], pinned: Sequence[int]
) -> tuple[Gpu, ...] | str:
    by_index = {gpu.index: gpu for gpu in gpus}
    missing = [index for index in pinned if index not in by_index]
    if missing:
        return f"gpu {missing[0]} is pinned, and this host has {len(gpus)} GPUs"
    chosen = tuple(by_index[index] for index in pinned)
    reasons = [reason for gpu in chosen if (reason := _why_not(gpu, promised))]
    return "; ".join(reasons) if reasons else chosen


def _why_not(gpu: Gpu, promised: Collection[int]) -> str:
    if gpu.index in promised:
        return f"gpu {gpu.index} has another engine of this host"
    if not gpu.total:
        return f"gpu {gpu.index} does not answer"
    if gpu.free_share < FREE_SHARE:
        pids = ", ".join(str(each.pid) for each in gpu.processes) or "unknown"
        used = (gpu.total - gpu.free) / GIB
        return f"gpu {gpu.index} holds {used:.1f} GiB of pids {pids}"
    return ""
