"""What has happened to GPUs, kept by UUID until the host boots again.

The driver tells its errors (XIDs) only to who listens at the time, and what died of a
GPU is known only to who saw it: the next launcher reads both from a file.
"""

import json
import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from modelserver.births import TICKS, present_moment
from modelserver.decoding import decode
from modelserver.whole_files import write_whole

_log = logging.getLogger(__name__)

#: The file in the run folder.
FAULTS_FILE = "gpu-faults.json"
#: Errors of the driver (XIDs) that are kept for each GPU, the newest.
XIDS_KEPT = 8
#: XIDs after which nothing is started on a GPU. Others (13, 31, 43, ...) are faults of
#: the program that ran there; 154 says that the driver asks for a reset, which is read.
FATAL_XIDS = {
    48: "double-bit ECC error",
    64: "a row or page of its memory could not be replaced",
    74: "NVLink error",
    79: "fallen off the bus",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "no answer from its firmware",
    120: "error of its firmware",
    140: "unrecovered ECC error",
    143: "could not be initialised",
}
#: XIDs of a GPU that keep nobody away from it.
KNOWN_XIDS = {
    63: "a row or page of its memory is to be replaced: reset it when it is free",
    92: "many memory errors, all corrected",
    154: "the driver says what it needs",
}
#: What to do about a GPU that a file keeps out of use.
REMEDY = (
    "reset or replace it, then restart its host (or the launcher without its "
    f"{FAULTS_FILE})"
)
#: A GPU is put aside when 3 engines died of CUDA errors on it ...
DEATHS = 3
#: ... within 3600 seconds, and fewer on all other GPUs of its host.
DEATHS_SECONDS = 3600.0
#: Deaths that are kept at most, the newest.
DEATHS_KEPT = 64


@dataclass(frozen=True, slots=True)
class CudaDeath:
    """An engine that died of an error of CUDA."""

    #: When, in seconds since the host booted.
    at: float
    engine: str
    #: The GPUs that it had.
    uuids: tuple[str, ...]
    #: The line in its log.
    line: str = ""


@dataclass(frozen=True, slots=True)
class KeptFaults:
    """What the file holds."""

    #: The boot of the host that it is about.
    boot: str = ""
    #: The last XIDs of each GPU, by its UUID.
    xids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    deaths: tuple[CudaDeath, ...] = ()
    #: Why GPUs were put aside, by their UUIDs.
    aside: dict[str, str] = field(default_factory=dict)


def find_bad_gpus(deaths: Sequence[CudaDeath], now: float) -> dict[str, str]:
    """The GPUs on which engines die again and again, with what is told of them.

    Where engines die on others as well it is the engine or its model. Of several that
    engines always had together nobody knows which one it is.
    """
    recent = [each for each in deaths if now - each.at <= DEATHS_SECONDS]
    bad = {}
    for uuid in {uuid for each in recent for uuid in each.uuids}:
        here = [each for each in recent if uuid in each.uuids]
        is_told_apart = len(here[0].uuids) == 1 or len({e.uuids for e in here}) > 1
        if len(here) >= DEATHS and len(recent) < 2 * len(here) and is_told_apart:
            names = ", ".join(dict.fromkeys(each.engine for each in here))
            bad[uuid] = (
                f"engines died of CUDA errors on it {len(here)} times within an hour "
                f"({names}; the last: {here[-1].line})"
            )
    return bad


class GpuFaults:
    """The faults of this boot. ``path`` is their file, None for no file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        # XIDs come from the thread that reads the GPUs.
        self._lock = threading.Lock()
        self._kept = KeptFaults(present_moment().boot)
        if path is not None:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            kept = decode(KeptFaults, json.loads(path.read_text()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read (%r); earlier faults are lost", path, error)
            return
        if kept.boot == self._kept.boot:
            self._kept = kept

    def _keep(self, kept: KeptFaults) -> None:
        self._kept = kept
        if self._path is None:
            return
        try:
            write_whole(self._path, json.dumps(asdict(kept)))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    def note_xid(self, uuid: str, xid: int) -> None:
        """Note an error that the driver has just told."""
        what = FATAL_XIDS.get(xid) or KNOWN_XIDS.get(xid, "")
        _log.warning("gpu uuid=%s XID %d %s", uuid, xid, what)
        with self._lock:
            newest = (*self.xids(uuid), xid)[-XIDS_KEPT:]
            self._keep(replace(self._kept, xids={**self._kept.xids, uuid: newest}))

    def note_death(self, engine: str, uuids: Iterable[str], line: str) -> None:
        """Note an engine that died of CUDA."""
        at = present_moment().ticks / TICKS
        death = CudaDeath(at, engine, tuple(uuids), line)
        with self._lock:
            deaths = (*self._kept.deaths, death)[-DEATHS_KEPT:]
            aside = find_bad_gpus(deaths, at) | self._kept.aside
            self._keep(replace(self._kept, deaths=deaths, aside=aside))

    def xids(self, uuid: str) -> tuple[int, ...]:
        """The last XIDs of a GPU in this boot."""
        return self._kept.xids.get(uuid, ())

    def find_fault(self, uuid: str, part: str = "") -> str:
        """Why a GPU may not be used until the host boots again, "" where it may.

        ``part`` is the UUID of a slice of it.
        """
        fatal = [xid for xid in self.xids(uuid) if xid in FATAL_XIDS]
        what = f"XID {fatal[-1]}, {FATAL_XIDS[fatal[-1]]}" if fatal else ""
        what = what or self._kept.aside.get(part or uuid, "")
        return f"{what}; {REMEDY}" if what else ""

    def notes(self, uuid: str) -> tuple[str, ...]:
        """What its XIDs say that keeps nobody away."""
        known = dict.fromkeys(xid for xid in self.xids(uuid) if xid in KNOWN_XIDS)
        return tuple(f"XID {xid}, {KNOWN_XIDS[xid]}" for xid in known)
