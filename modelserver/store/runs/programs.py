"""Runs that programs carry out themselves: how far each last said that it is.

Only to be shown. Nothing of their prompts is kept here.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from modelserver.decoding import decode
from modelserver.python310 import StrEnum
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each

#: What a run last said is kept for so long, in seconds.
KEPT_SECONDS = 86_400
#: A run that has said nothing for so many seconds is silent: its program is dead, was
#: stopped, or cannot reach the server.
SILENT_SECONDS = 15.0
#: Most runs that are listed, the last ones that said something.
MOST_LISTED = 100


class ProgramRunState(StrEnum):
    """How a program's run stands."""

    RUNNING = "running"
    SILENT = "silent"
    COMPLETED = "completed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """A run as its program tells of it. Times are by the server's clock."""

    id: str
    #: What its rows are: "prompts", "texts", "rows".
    what: str
    #: How many there are, None where that is not known before.
    total: int | None = None
    done: int = 0
    #: How many of these have no answer.
    failed: int = 0
    host: str = ""
    user: str = ""
    pid: int = 0
    #: The name of the program's file, or of the file that has the rows; "" for none.
    program: str = ""
    #: Rows a second of late.
    rate: float = 0.0
    began_at: float = 0.0
    told_at: float = 0.0
    #: "completed" or "stopped", "" before the end.
    end: str = ""

    def state(self, now: float) -> ProgramRunState:
        """How it stands."""
        if self.end:
            return ProgramRunState(self.end)
        is_silent = now - self.told_at > SILENT_SECONDS
        return ProgramRunState.SILENT if is_silent else ProgramRunState.RUNNING

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until all are done at this rate, None where nobody can say."""
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate


def tell_program_run(store: Store, run: ProgramRun) -> None:
    """Say how far a run is at its ``told_at``."""
    keys = store.keys
    with store.client.pipeline(transaction=False) as pipe:
        pipe.set(keys.program_run(run.id), json.dumps(asdict(run)), ex=KEPT_SECONDS)
        pipe.zadd(keys.program_runs, {run.id: run.told_at})
        pipe.zremrangebyrank(keys.program_runs, 0, -MOST_LISTED - 1)
        pipe.expire(keys.program_runs, KEPT_SECONDS)
        pipe.execute()


def read_program_runs(store: Store) -> tuple[ProgramRun, ...]:
    """The runs that said something within a day."""
    keys = store.keys
    ids = list(store.run("ZRANGE", keys.program_runs, 0, -1))
    if not ids:
        return ()
    values = store.run("MGET", *map(keys.program_run, ids))
    stored = {name: text for name, text in zip(ids, values, strict=True) if text}
    return tuple(read_each(store, "program's run", stored, _decode).values())


def _decode(text: str) -> ProgramRun:
    values: Mapping[str, object] = json.loads(text)
    return decode(ProgramRun, values)
