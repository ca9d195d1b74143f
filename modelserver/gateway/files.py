"""Files that clients upload, and those that batches leave, in a folder of this host.

What is known of a file stands beside it, so that gateways that share the folder share
the files. Nobody sees another key's.
"""

import asyncio
import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelserver.decoding import decode
from modelserver.errors import RequestError

#: The only purpose that files have here.
PURPOSE = "batch"
#: The largest file that is taken, in bytes.
MOST_FILE_BYTES = 10_000_000_000
#: How the ids of files begin.
HEAD = "file-"
#: Ids of a batch's files are made of its own.
_IDS = uuid.UUID("c4d1f9c8-94a1-44b5-b84f-0d7f3f6a5f0e")
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What is known of one file."""

    id: str
    filename: str
    created_at: int
    #: The API key that it belongs to, "" for none.
    owner: str = ""
    #: Where its content lies, if not beside this record.
    path: str = ""

    @property
    def purpose(self) -> str:
        """What it is for: batches read it, or one has left it."""
        return "batch_output" if self.path else PURPOSE

    def told(self, size: int) -> dict[str, Any]:
        """As OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": size,
            "created_at": self.created_at,
            "expires_at": None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class FileFolder:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def content(self, record: FileRecord) -> Path:
        """Where a file's content lies."""
        return Path(record.path) if record.path else self.folder / f"{record.id}.jsonl"

    def describe(self, record: FileRecord) -> dict[str, Any]:
        """OpenAI's object about a file."""
        try:
            size = self.content(record).stat().st_size
        except FileNotFoundError:
            size = 0
        return record.told(size)

    async def keep(
        self, name: str, owner: str, chunks: AsyncIterator[bytes]
    ) -> FileRecord:
        """Keep an uploaded file. Raises RequestError, OSError."""
        self._make()
        now = int(time.time())
        record = FileRecord(f"{HEAD}{uuid.uuid4().hex}", name, now, owner)
        partial = self.folder / f"{record.id}.part"
        size = 0
        try:
            with partial.open("xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > MOST_FILE_BYTES:
                        raise RequestError(
                            f"file is larger than {MOST_FILE_BYTES:,} bytes; send it "
                            "in parts"
                        )
                    await asyncio.to_thread(file.write, chunk)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            if not size:
                raise RequestError("file is empty; there is nothing to do with it")
            partial.rename(self.content(record))
        finally:
            partial.unlink(missing_ok=True)
        write_json(self._beside(record.id), asdict(record))
        return record

    def adopt(self, batch: str, kind: str, path: Path, owner: str) -> FileRecord:
        """Know a file that a batch has left; the same each time."""
        name = uuid.uuid5(_IDS, f"{batch}-{kind}").hex
        record = FileRecord(
            f"{HEAD}{name}", path.name, int(path.stat().st_mtime), owner, str(path)
        )
        if not self._beside(record.id).exists():
            self._make()
            write_json(self._beside(record.id), asdict(record))
        return record

    def find(self, file: str, owner: str) -> FileRecord | None:
        """One file of this owner."""
        if not is_id(file, HEAD):
            return None
        found = read_json(self._beside(file))
        record = decode(FileRecord, found) if found else None
        return record if record and record.owner == owner else None

    def all(self, owner: str) -> list[FileRecord]:
        """All files of this owner, the newest first."""
        found = [decode(FileRecord, values) for values in read_all(self.folder, HEAD)]
        own = [record for record in found if record.owner == owner]
        return sorted(own, key=lambda record: (-record.created_at, record.id))

    def remove(self, record: FileRecord) -> None:
        """Remove a file and what is known of it."""
        self._beside(record.id).unlink(missing_ok=True)
        self.content(record).unlink(missing_ok=True)

    def _beside(self, file: str) -> Path:
        return self.folder / f"{file}.json"


# Records as files of JSON.


def is_id(value: str, head: str) -> bool:
    """Whether a client's word is an id, and no path."""
    rest = value.removeprefix(head)
    return value.startswith(head) and _HEX.fullmatch(rest) is not None


def write_json(path: Path, values: Any) -> None:
    """Replace a record, whole or not at all."""
    partial = path.with_suffix(f".{uuid.uuid4().hex}.part")
    with partial.open("w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """A record, {} if there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def read_all(folder: Path, head: str) -> Iterator[dict[str, Any]]:
    """All records whose ids begin so."""
    for path in folder.glob(f"{head}*.json"):
        if is_id(path.stem, head) and (found := read_json(path)):
            yield found


@contextmanager
def locked(path: Path, waits: bool = False) -> Iterator[bool]:
    """Whether nobody else has this lock, if it is not waited for; held meanwhile."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError:
            yield False
            return
        yield True
