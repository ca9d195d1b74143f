"""What a launcher writes down of each running engine, so that the next can adopt it."""

import dataclasses
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from launcher.host.process import Identity
from modelserver.decoding import decode
from modelserver.values import EngineSpec, ModelSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """One started engine."""

    spec: EngineSpec
    incarnation: int
    process: Identity
    port: int
    gpus: tuple[int, ...]
    #: Where this start begins in the log, in bytes.
    log_offset: int
    #: An epoch time of this host.
    started_at: float
    #: Whether it ever was READY.
    ready: bool = False
    uuids: tuple[str, ...] = ()
    #: What it was started as, without the values of its environment; None in records of
    #: earlier versions.
    model: ModelSpec | None = None
    #: The last round of canaries that is over.
    canary: int = 0
    #: Requests that it may run at once by its command; once it is READY, those that it
    #: takes by its own account. 0 where neither says.
    capacity: int = 0


class Records:
    """One file per engine in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, engine: str) -> Path:
        return self._folder / f"{quote(engine, safe='')}.json"

    def write(self, record: Record) -> None:
        """Write a record in one step, so that it is never seen half written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(record.spec.id)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(dataclasses.asdict(record)))
        os.replace(unfinished, path)

    def remove(self, engine: str) -> None:
        """Remove an engine's record, if there is one."""
        self._path(engine).unlink(missing_ok=True)

    def read_all(self) -> tuple[Record, ...]:
        """All records; a damaged one is logged and removed."""
        records = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                records.append(decode(Record, json.loads(path.read_text())))
            except FileNotFoundError:
                continue  # It has just been removed.
            except (ValueError, KeyError, TypeError) as error:
                _log.warning(
                    "record %s is damaged (%r) and removed; its engine is not adopted",
                    *(path, error),
                )
                path.unlink(missing_ok=True)
        return tuple(records)
