"""What a launcher writes down of each running engine, so that the next can adopt it."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from launcher.host.process import Identity
from modelserver.decoding import decode
from modelserver.values import EngineSpec, Json, ModelSpec
from modelserver.whole_files import write_whole

_log = logging.getLogger(__name__)

#: The version of the form of records; one more where older launchers must not read it.
SCHEMA = 1


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
    #: Which node of the engine it is, and the port at which its nodes meet.
    node: int = 0
    meeting_port: int = 0
    #: The version of this form; a newer one may have what this one cannot read.
    schema: int = SCHEMA


class Records:
    """One file per engine in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: set[Path] = set()

    def _path(self, engine: str) -> Path:
        return self._folder / f"{quote(engine, safe='')}.json"

    def write(self, record: Record) -> None:
        """Write a record in one step, so that it is never seen half written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(record.spec.id)
        values = dataclasses.asdict(record)
        write_whole(path, json.dumps({**_unknown(path, record), **values}))

    def update(self, record: Record) -> None:
        """Write it again; where that fails, the one before stands."""
        try:
            self.write(record)
        except OSError as error:
            _log.warning("engine=%s keeps its old record: %s", record.spec.id, error)

    def remove(self, engine: str) -> None:
        """Remove an engine's record, if there is one.

        Where that fails it says nothing any more: its processes have ended, which the
        next launcher finds as well.
        """
        try:
            self._path(engine).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("engine=%s its record stays: %s", engine, error)

    def read_all(self) -> tuple[Record, ...]:
        """All records; a damaged one is logged and removed, a newer one is left."""
        records = []
        for path in sorted(self._folder.glob("*.json")):
            values: Json = None
            try:
                values = json.loads(path.read_text())
                record = decode(Record, values)
                if path == self._path(record.spec.id):
                    records.append(record)
                else:
                    what = f"is a copy of that of engine {record.spec.id}"
                    self._leave(path, what, "remove it")
            except FileNotFoundError:
                continue  # It has just been removed.
            except OSError as error:
                self._leave(path, f"cannot be read ({error})", "see to its disk")
            except (ValueError, KeyError, TypeError) as error:
                self._set_aside(path, values, error)
        return tuple(records)

    def _set_aside(self, path: Path, values: Json, error: Exception) -> None:
        schema = values.get("schema") if isinstance(values, dict) else None
        if not isinstance(schema, int) or schema <= SCHEMA:
            _log.warning(
                "record %s is damaged (%r) and removed; its engine is not adopted",
                *(path, error),
            )
            path.unlink(missing_ok=True)
        else:
            self._leave(path, "is of a newer modelserver", "upgrade this host")

    def _leave(self, path: Path, why: str, remedy: str) -> None:
        if path not in self._told:
            self._told.add(path)
            _log.warning(
                "record %s %s and is left alone; no engine is adopted by it: %s",
                *(path, why, remedy),
            )


def _unknown(path: Path, record: Record) -> dict[str, Json]:
    """What a newer launcher has written of the same start, beside what is known."""
    try:
        values = json.loads(path.read_text())
        same = values["process"]["mark"] == record.process.mark
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    known = {each.name for each in dataclasses.fields(Record)}
    return {name: values[name] for name in values if same and name not in known}
