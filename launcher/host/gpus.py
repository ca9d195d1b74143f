"""This host's GPUs, read live: with ``gpu_health`` the only caller of NVML.

What a driver or a GPU does not tell is left out and named in ``Gpu.missing``; nothing
here raises. NVML stays open between readings, or its events would be lost.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pynvml

from launcher.host.device_kinds import UNIFIED, describe_others
from launcher.host.gpu_faults import GpuFaults
from launcher.host.gpu_health import read_health
from launcher.host.own_gpus import OwnGpus
from launcher.host.process_owners import ProcessOwners
from modelserver.inventory import Gpu, GpuProcess

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Seconds after which names, UUIDs and MIG slices are read again. They are read at once
#: when the number of GPUs changes.
DISCOVER_SECONDS = 15.0
#: Seconds that a reading waits for another one that hangs in the driver.
READING_WAIT_SECONDS = 5.0
#: Errors of NVML by which a GPU is of no use until it is reset.
LOST_ERRORS = (
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_GPU_NOT_FOUND,
)
#: What is said with NVML's "Unknown Error".
TAKEN_DEVICES = (
    " (a container whose devices were taken away, as a reload of systemd does: start "
    "it anew, with --device for each of /dev/nvidia*, or docker with cgroupfs)"
)
#: What is said with an update of the driver: its library stays loaded in a process.
NEW_DRIVER = (
    " (the driver was updated: restart this host; or end its launcher and start it "
    "anew, once `nvidia-smi` works)"
)
#: What is said with errors of NVML.
_HINTS = {
    pynvml.NVML_ERROR_UNKNOWN: TAKEN_DEVICES,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: NEW_DRIVER,
}
#: Why a GPU's clocks are lower than they could be, by NVML's bits. That it is idle, or
#: has its clocks set, is no such reason.
THROTTLE_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


@dataclass(frozen=True, slots=True)
class _Device:
    """A GPU or a MIG slice."""

    index: int
    handle: Any
    #: The GPU that a slice is of.
    board: Any
    uuid: str = ""
    board_uuid: str = ""
    name: str = ""
    mig: str = ""
    fault: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    #: The indexes of the GPUs that NVLink connects it with.
    links: tuple[int, ...] = ()
    #: What is wrong with it and keeps nobody away.
    notes: tuple[str, ...] = ()


class GpuInventory:
    """Reads the GPUs. ``driver`` is its version, or why no GPUs can be seen.

    ``own`` gives which of them are this launcher's, ``faults`` what happened to them.
    """

    def __init__(
        self,
        owners: ProcessOwners | None = None,
        own: Callable[[], OwnGpus] = OwnGpus,
        faults: GpuFaults | None = None,
    ) -> None:
        self.driver = ""
        self._own = own
        self._faults = faults or GpuFaults()
        self._others = describe_others()
        self._owners = owners or ProcessOwners()
        self._lock = threading.Lock()
        self._open = False
        self._devices: list[_Device] = []
        self._discover_at = 0.0
        self._events: Any = None
        self._heard: set[str] = set()
        self._no_events: dict[str, str] = {}
        self._last: tuple[Gpu, ...] = ()

    def read(self) -> tuple[Gpu, ...]:
        """The GPUs by index, none without a driver. Blocks while the driver hangs."""
        if not self._lock.acquire(timeout=READING_WAIT_SECONDS):
            fault = f"the driver has not answered for {READING_WAIT_SECONDS:g} s"
            return tuple(replace(gpu, fault=gpu.fault or fault) for gpu in self._last)
        try:
            self._last = self._read_all()
        except pynvml.NVMLError as error:
            said = (f"no GPUs: {_explain(error)}", self._others)
            self.driver = "; ".join(filter(None, said))
            self._shut()
            self._last = ()
        finally:
            self._lock.release()
        return self._last

    def _read_all(self) -> tuple[Gpu, ...]:
        if not self._open:
            pynvml.nvmlInit()
            self._open, self._discover_at = True, 0.0
            self.driver = _or("?", lambda: str(pynvml.nvmlSystemGetDriverVersion()))
            self._events = _or(None, pynvml.nvmlEventSetCreate)
            self._heard, self._no_events = set(), {}
        count = int(pynvml.nvmlDeviceGetCount())
        boards = len({device.index for device in self._devices})
        if count != boards or time.monotonic() >= self._discover_at:
            self._discover(count)
        self._hear()
        self._owners.refresh()
        return self._own().mark([self._read(device) for device in self._devices])

    def _shut(self) -> None:
        if self._open:
            _or(None, pynvml.nvmlShutdown)
        self._open, self._events, self._devices = False, None, []

    # Which there are.

    def _discover(self, count: int) -> None:
        known = {device.index: device for device in self._devices}
        found = _linked([_board(index, known.get(index)) for index in range(count)])
        for board in found:
            self._listen(board)
        self._devices = [each for board in found for each in _slices(board)]
        # A lost GPU may come back at any time.
        lost = any(device.handle is None for device in found)
        self._discover_at = time.monotonic() + (0 if lost else DISCOVER_SECONDS)

    # What happened to them.

    def _listen(self, board: _Device) -> None:
        if board.handle is None or board.uuid in self._heard:
            return
        self._heard.add(board.uuid)
        xid = pynvml.nvmlEventTypeXidCriticalError
        try:
            if self._events is None:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            pynvml.nvmlDeviceRegisterEvents(board.handle, xid, self._events)
        except pynvml.NVMLError as error:
            self._no_events[board.uuid] = str(error)

    def _hear(self) -> None:
        """Take the XIDs that came since the last reading."""
        while self._events is not None:
            try:
                event = pynvml.nvmlEventSetWait(self._events, 0)
                uuid = str(pynvml.nvmlDeviceGetUUID(event.device))
            except pynvml.NVMLError:
                return  # No more events, or a GPU that does not say which it is.
            self._faults.note_xid(uuid, int(event.eventData))
            # What the driver asks for is read anew.
            self._discover_at = 0.0

    # How they are.

    def _read(self, device: _Device) -> Gpu:
        missing = dict(device.missing)
        fault = self._faults.find_fault(device.board_uuid, device.uuid) or device.fault
        if device.board_uuid in self._no_events:
            missing["xids"] = self._no_events[device.board_uuid]

        def get(name: str, read: Callable[[], _T]) -> _T | None:
            nonlocal fault
            if device.handle is None:
                missing[name] = device.fault
                return None
            try:
                return read()
            except pynvml.NVMLError as error:
                missing[name] = _explain(error)
                if error.value in LOST_ERRORS:
                    fault = fault or f"{error}; reset it, or restart the host"
                    self._discover_at = 0.0
                return None

        handle, board, nvml = device.handle, device.board, pynvml
        memory = get("memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        load = get("utilization", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        sensor = nvml.NVML_TEMPERATURE_GPU
        heat = get("temperature", lambda: nvml.nvmlDeviceGetTemperature(board, sensor))
        power = get("power_watts", lambda: nvml.nvmlDeviceGetPowerUsage(board))
        reasons = get("throttled", lambda: _clock_reasons(board)) or 0
        running = get("processes", lambda: _running(handle)) or {}
        return Gpu(
            index=device.index,
            uuid=device.uuid,
            name=device.name,
            total=int(memory.total) if memory else 0,
            used=int(memory.used) if memory else 0,
            free=int(memory.free) if memory else 0,
            utilization=load.gpu / 100 if load else None,
            temperature=heat,
            power_watts=None if power is None else power / 1000,
            throttled=tuple(
                why for bit, why in THROTTLE_REASONS.items() if reasons & bit
            ),
            xids=self._faults.xids(device.board_uuid),
            notes=(*device.notes, *self._faults.notes(device.board_uuid)),
            mig=device.mig,
            links=device.links,
            fault=fault,
            processes=self._processes(running, missing),
            unseen=0 if self._owners.sees_all or not memory else int(memory.used),
            left_out=UNIFIED if _is_unified(device, missing) else "",
            missing=missing,
        )

    def _processes(
        self, running: dict[int, int], missing: dict[str, str]
    ) -> tuple[GpuProcess, ...]:
        found, unseen = [], []
        for pid, used in sorted(running.items()):
            process = self._owners.identify(pid, used)
            found.append(process or GpuProcess(pid, used))
            if process is None:
                unseen.append(str(pid))
        if unseen:
            pids = ", ".join(unseen)
            why = "it runs in another container, or has just ended"
            missing["owner"] = f"pid {pids} cannot be seen from here: {why}"
        return tuple(found)


def _explain(error: pynvml.NVMLError) -> str:
    """An error of NVML in words, with what is known of it."""
    return f"{error}{_HINTS.get(error.value, '')}"


def _is_unified(device: _Device, missing: Mapping[str, str]) -> bool:
    """Whether a whole GPU has no memory of its own, as DGX Spark's."""
    unsupported = str(pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED))
    return not device.mig and missing.get("memory") == unsupported


def _or(default: _T, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except pynvml.NVMLError:
        return default


def _board(index: int, known: _Device | None) -> _Device:
    """One GPU by its index; a lost one keeps the name that it had."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = str(pynvml.nvmlDeviceGetUUID(handle))
    except pynvml.NVMLError as error:
        fault = f"{_explain(error)}; reset it, or restart the host"
        was = known or _Device(index, None, None)
        uuid = was.board_uuid
        return _Device(index, None, None, uuid, uuid, was.name, fault=fault)
    name = _name(handle)
    missing = {} if name else {"name": "the driver does not tell it"}
    health = read_health(handle)
    return _Device(
        *(index, handle, handle, uuid, uuid, name),
        fault=health.fault,
        missing=missing,
        notes=health.notes,
    )


def _linked(boards: list[_Device]) -> list[_Device]:
    """The GPUs with whom NVLink connects each, directly or by switches."""
    links: dict[int, list[int]] = {board.index: [] for board in boards}
    answering = [board for board in boards if board.handle is not None]
    for one, other in itertools.combinations(answering, 2):
        if _are_linked(one.handle, other.handle):
            links[one.index].append(other.index)
            links[other.index].append(one.index)
    return [replace(each, links=tuple(links[each.index])) for each in boards]


def _are_linked(one: Any, other: Any) -> bool:
    kind, well = pynvml.NVML_P2P_CAPS_INDEX_NVLINK, pynvml.NVML_P2P_STATUS_OK
    ask = pynvml.nvmlDeviceGetP2PStatus
    return bool(_or(None, lambda: ask(one, other, kind)) == well)


def _name(handle: Any) -> str:
    return _or("", lambda: str(pynvml.nvmlDeviceGetName(handle)))


def _slices(board: _Device) -> list[_Device]:
    """The GPU itself, or its MIG slices where it is divided."""
    if board.handle is None:
        return [board]
    current, _ = _or([0, 0], lambda: pynvml.nvmlDeviceGetMigMode(board.handle))
    if not current:
        return [board]
    number = _or(0, lambda: int(pynvml.nvmlDeviceGetMaxMigDeviceCount(board.handle)))
    found = []
    for place in range(number):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(board.handle, place)
            uuid = str(pynvml.nvmlDeviceGetUUID(handle))
        except pynvml.NVMLError:
            continue  # Places without a slice are normal.
        name = _name(handle) or board.name
        part = replace(board, handle=handle, uuid=uuid, name=name, mig=str(place))
        found.append(part)
    return found or [replace(board, fault="MIG is on, and it has no slices")]


def _clock_reasons(board: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(board))
    except pynvml.NVMLError_FunctionNotFound:
        # Its name before driver 535.
        return int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(board))


def _running(handle: Any) -> dict[int, int]:
    """Bytes by pid, 0 where unknown; a process that computes and draws counts once."""
    used: dict[int, int] = {}
    # By versioned names: the others raise no NVMLError with an older driver.
    compute = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    graphics: list[Any] = _or(
        [], lambda: pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3(handle)
    )
    for process in (*graphics, *compute):
        size = process.usedGpuMemory or 0
        used[process.pid] = max(size, used.get(process.pid, 0))
    return used
