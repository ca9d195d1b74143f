"""Whether this host sees a run's files. A run that it does not is left to others."""

import errno
import os
from pathlib import Path

from modelserver.errors import BatchFileError
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.store.runs.hosted import SubmittedRun

#: What goes wrong where files are on another host, or another user's.
UNSEEN_ERRORS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.ESTALE),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
)
#: Bytes that a disk must take before a run goes on that it was full for.
ROOM_BYTES = 2**20


def find_unseen(run: SubmittedRun, host: str) -> str:
    """Why this host leaves a run to others, "" where it sees its files."""
    source, paths = Path(run.source), BatchPaths(Path(run.output))
    if not os.access(source, os.R_OK):
        found = "may not read" if os.path.lexists(source) else "does not see"
        return f"{host} {found} {source}"
    try:
        journal = Journal.read(paths.journal)
    except BatchFileError as error:
        return f"{host}: {error}"
    if journal is None or journal.run != run.id:
        return f"{host} does not see {paths.journal} of this run"
    for path in (paths.output.parent, paths.output, paths.errors):
        if path.exists() and not os.access(path, os.W_OK):
            return f"{host} may not write {path}"
    return ""


def has_room(output: Path) -> bool:
    """Whether the disk of a run's output takes some bytes again."""
    probe = output.with_name(f"{output.name}.room")
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(ROOM_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
