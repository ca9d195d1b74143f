"""What a GPU says of its own health, beside the errors that its driver reports.

With ``gpus`` the only caller of NVML. What a GPU or driver does not tell is no fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

_T = TypeVar("_T")

#: What a driver asks for before a GPU is used again, by NVML's numbers, of which older
#: versions of its module know a few.
RECOVERY_ACTIONS = {
    1: "a reset",
    2: "a restart of its host",
    3: "a reset, as its NVLinks do not work",
    4: "a reset",
    6: "a reset",
    7: "a restart of its host",
}


@dataclass(frozen=True, slots=True)
class GpuHealth:
    """What is wrong with a GPU."""

    #: Why nothing may be started on it, "" where it may.
    fault: str = ""
    #: What keeps nobody away and should be looked after.
    notes: tuple[str, ...] = ()


def read_health(handle: Any) -> GpuHealth:
    """The health of a GPU by its own account."""
    remapped = _or((0, 0, 0, 0), lambda: pynvml.nvmlDeviceGetRemappedRows(handle))
    _, _, pending, failed = remapped
    retiring = _or(0, lambda: pynvml.nvmlDeviceGetRetiredPagesPendingStatus(handle))
    action = RECOVERY_ACTIONS.get(_recovery_action(handle), "")
    faults = (
        "a row of its memory could not be remapped; replace it" * bool(failed),
        "a page of its memory is to be retired; reset it" * bool(retiring),
        f"its driver asks for {action}" * bool(action),
    )
    notes = (
        "a row of its memory is to be remapped: reset it when it is free"
        * bool(pending),
        _uncorrected(handle),
        _links_down(handle),
    )
    return GpuHealth(next(filter(None, faults), ""), tuple(filter(None, notes)))


def _recovery_action(handle: Any) -> int:
    field = pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
    values = _or(None, lambda: pynvml.nvmlDeviceGetFieldValues(handle, [field]))
    if values is None or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return 0
    return int(values[0].value.uiVal)


def _uncorrected(handle: Any) -> str:
    kind, since = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    ask = pynvml.nvmlDeviceGetTotalEccErrors
    count = _or(0, lambda: ask(handle, kind, since))
    return f"{count} uncorrected memory errors since its last reset" * bool(count)


def _links_down(handle: Any) -> str:
    """Told where some links work and others do not: many GPUs have none in use."""
    states: list[int] = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            states.append(pynvml.nvmlDeviceGetNvLinkState(handle, link))
        except pynvml.NVMLError:
            break  # It has no more.
    up = sum(map(bool, states))
    return f"{up} of its {len(states)} NVLinks work" * (0 < up < len(states))


def _or(default: _T, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except pynvml.NVMLError:
        return default
