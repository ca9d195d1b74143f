"""``modelserver batch watch`` and ``results``: what comes of a submitted run."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import click

from modelserver.cli.batch.panel import Panel, line
from modelserver.cli.batch.report import show
from modelserver.cli.batch.run import STOPPED
from modelserver.cli.output import print_json
from modelserver.errors import ModelserverError, RequestError, StoreUnreachableError
from modelserver.runs.files.problems import file_error
from modelserver.runs.hosting.choosing import find_obstacle
from modelserver.runs.hosting.orders import find_run
from modelserver.runs.hosting.telling import RunView
from modelserver.settings import load
from modelserver.store import Store, connect
from modelserver.store.runs.hosted import ENDED, HostedRun, RunState, read_holders

#: A run is looked at again after so many seconds.
LOOK_AGAIN_SECONDS = 0.5


@click.command()
@click.argument("name", metavar="ID")
@click.option("--quiet", is_flag=True, help="No panel.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def watch(name: str, quiet: bool, as_json: bool) -> None:
    """Show how far a run is, until it has ended; Ctrl-C ends only this.

    Exits as `batch run` does: with 0 only if every row was answered.
    """
    store = connect(load())
    watched = _Watched(store, find_run(store, name))
    watched.look()
    if not quiet and not sys.stderr.isatty():
        click.echo(line(watched.view), err=True)
    try:
        with Panel(watched.view, quiet) as panel:
            while not watched.look():
                panel.draw()
                time.sleep(LOOK_AGAIN_SECONDS)
    except KeyboardInterrupt:
        click.echo(f"run {watched.found.run.id} goes on", err=True)
        sys.exit(STOPPED)
    _end(watched.found, watched.state, as_json)


class _Watched:
    """A run that is read again and again."""

    def __init__(self, store: Store, found: HostedRun) -> None:
        self._store = store
        self.found = found
        self.view = RunView(found)
        self.state = ""

    def look(self) -> bool:
        """Read it anew; whether it has ended."""
        try:
            self.found = find_run(self._store, self.found.run.id)
            with self._store.reachable():
                now, holders = self._store.now(), read_holders(self._store)
            trouble = find_obstacle(self.found, holders, now)
            self.state = self.found.state(now)
            if self.state == RunState.PAUSED:
                trouble = f"it is paused. {trouble}".rstrip()
        except StoreUnreachableError as error:
            trouble = str(error)
        self.view.update(self.found, trouble)
        return self.state in ENDED


@click.command()
@click.argument("name", metavar="ID")
@click.option(
    *("-o", "--output", "target"),
    type=click.Path(dir_okay=False),
    help="Copy the answers into this file; - is standard output.",
)
@click.option("--follow", is_flag=True, help="With -o: as they come, until the end.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def results(name: str, target: str | None, follow: bool, as_json: bool) -> None:
    """Show the report of a run and where its output lies, or copy the output.

    Exits with 0 only if every row was answered, with 130 before the end.
    """
    if follow and target is None:
        raise RequestError("--follow needs -o: where answers go, as in -o -")
    store = connect(load())
    watched = _Watched(store, find_run(store, name))
    is_over = watched.look()
    if target is not None:
        # Whoever reads them may stop, as `head` does.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        _copy(watched.found, target, watched.look if follow else lambda: True)
        sys.exit(exit_status(watched.found, watched.state))
    if not is_over and not as_json:
        found = watched.found
        click.echo(f"run {found.run.id} is {watched.state}: {line(watched.view)}")
        click.echo(f"  output file: {found.run.output} (host {found.run.host})")
    _end(watched.found, watched.state, as_json)


def _copy(found: HostedRun, target: str, is_over: Callable[[], bool]) -> None:
    source = Path(found.run.output)
    if not source.parent.is_dir():
        raise ModelserverError(
            f"{source} is not seen here; it lies where run {found.run.id} was "
            f"submitted, on host {found.run.host}"
        )
    if target != "-" and Path(target).absolute() == source:
        raise RequestError(f"{target} is the run's own output; name another file")
    try:
        with ExitStack() as stack:
            stream: IO[bytes] = sys.stdout.buffer
            if target != "-":
                stream = stack.enter_context(Path(target).open("wb"))
            for each in _lines(source, is_over):
                stream.write(each)
                stream.flush()
    except OSError as error:
        raise file_error("copy the answers to", target, error) from None


def _lines(source: Path, is_over: Callable[[], bool]) -> Iterator[bytes]:
    """Whole lines of a file that grows; a holder may put a copy in its place."""
    length = 0
    while True:
        is_last = is_over()
        if source.exists():
            with source.open("rb") as stream:
                stream.seek(length)
                for each in stream:
                    if each.endswith(b"\n"):
                        length += len(each)
                        yield each
        if is_last:
            return
        time.sleep(LOOK_AGAIN_SECONDS)


def _end(found: HostedRun, state: str, as_json: bool) -> None:
    """Tell the report, where there is one, and exit."""
    report: dict[str, Any] = {**found.report}
    if as_json:
        run = {"run": found.run.id, "state": state, "reason": found.standing.reason}
        print_json({**run, **report})
    elif report:
        show(RunView(found), report, click.echo)
    if state == RunState.FAILED:
        raise ModelserverError(f"run {found.run.id} failed: {found.standing.reason}")
    if state == RunState.CANCELLED:
        click.echo(f"run {found.run.id} was cancelled", err=True)
    sys.exit(exit_status(found, state))


def exit_status(found: HostedRun, state: str) -> int:
    """As ``batch run`` exits: 0 only if every row was answered, 130 before its end."""
    if state == RunState.COMPLETED:
        return 1 if found.report["request_counts"]["failed"] else 0
    return 1 if state == RunState.FAILED else STOPPED
