"""Runs as lists show them, whoever carries them out. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelserver.operations.words import seconds
from modelserver.runs.hosting.choosing import find_obstacle
from modelserver.runs.hosting.telling import RunView
from modelserver.runs.waiting import find_wait
from modelserver.store.runs.hosted import ENDED, HolderReport, HostedRun
from modelserver.store.runs.programs import ProgramRun, ProgramRunState

#: The states of what nobody goes on with by himself.
_OVER = (*ENDED, ProgramRunState.STOPPED)


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run in a list, submitted or a program's."""

    id: str
    #: What has its rows: a file, or "prompts of night.py".
    source: str
    user: str
    host: str
    began_at: float
    state: str
    answered: int
    failed: int
    #: How many rows there are, None where that is not known before.
    total: int | None
    #: Rows a second of late, None where nobody carries it out.
    rate: float | None
    #: None where nobody can say.
    eta_seconds: float | None
    #: Who carries it out, "" for nobody.
    holder: str
    #: What it waits for or why it stands, "" where it gets on.
    note: str

    @property
    def done(self) -> int:
        """Rows that are settled."""
        return self.answered + self.failed


def list_submitted(
    found: HostedRun, view: RunView, holders: Sequence[HolderReport], now: float
) -> ListedRun:
    """A run that was submitted."""
    run, tally, is_held = found.run, view.tally, found.is_held(now)
    note = find_obstacle(found, holders, now)
    return ListedRun(
        run.id,
        run.source,
        run.user,
        run.host,
        run.at,
        str(found.state(now)),
        tally.answered,
        tally.failed,
        run.rows,
        rate=tally.rates[0] if is_held else None,
        eta_seconds=tally.eta_seconds if is_held else None,
        holder=found.holder if is_held else "",
        note=note or (find_wait(view) if is_held else ""),
    )


def list_program_run(found: ProgramRun, now: float) -> ListedRun:
    """A run that a program carries out itself."""
    state, note = found.state(now), ""
    is_running = state is ProgramRunState.RUNNING
    if state is ProgramRunState.SILENT:
        ago = seconds(now - found.told_at)
        note = f"last told {ago} ago: its program is gone, or cannot reach Redis"
    return ListedRun(
        found.id,
        f"{found.what} of {found.program or 'a program'}",
        found.user,
        found.host,
        found.began_at,
        str(state),
        found.done - found.failed,
        found.failed,
        found.total,
        rate=found.rate if is_running else None,
        eta_seconds=found.eta_seconds if is_running else None,
        holder=f"{found.host}-{found.pid}",
        note=note,
    )


def in_order(runs: Iterable[ListedRun], most_over: int) -> list[ListedRun]:
    """Those that go on or will, then so many others: silent ones, then those at an end.

    Of each kind the last to begin is first. What comes first of one id counts: a file
    may have been run in a terminal before it was submitted.
    """
    once = {each.id: each for each in reversed(list(runs))}.values()
    found = sorted(once, key=lambda each: (_kind(each.state), -each.began_at))
    going = sum(not _kind(each.state) for each in found)
    return found[: going + most_over]


def _kind(state: str) -> int:
    if state == ProgramRunState.SILENT:
        return 1
    return 2 * (state in _OVER)
