"""``modelserver batch submit``, ``pause``, ``resume``, ``cancel``."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from modelserver.api import default_client
from modelserver.cli.batch.run import (
    keep_pipe,
    parse_options,
    prepare,
    refuse_places,
    run,
)
from modelserver.cli.output import print_json
from modelserver.runs.files.batch_run import BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.files.source import Source
from modelserver.runs.hosting.choosing import find_obstacle
from modelserver.runs.hosting.orders import find_run, order_run, resume_run
from modelserver.runs.hosting.submitting import absolute, find_submitted, submit_run
from modelserver.settings import load
from modelserver.store import Store, connect
from modelserver.store.runs.hosted import (
    HostedRun,
    RunOrder,
    RunState,
    read_holders,
    read_hosted,
)
from modelserver.user import find_user

#: Options of ``batch run`` that are about its terminal.
TERMINAL_OPTIONS = ("quiet", "as_json")
#: Seconds within which a holder does what was ordered, as a rule.
ORDER_SECONDS = 10.0
#: The largest weight of a run.
MOST_WEIGHT = 16


@click.command(
    params=[each for each in run.params if each.name not in TERMINAL_OPTIONS]
)
@click.option(
    "--weight",
    default=1,
    show_default=True,
    type=click.IntRange(1, MOST_WEIGHT),
    help="Its share of the fleet, beside a run of weight 1.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def submit(
    source: str,
    output: Path,
    form: str | None,
    is_sorted: bool,
    weight: int,
    as_json: bool,
    **more: Any,
) -> None:
    """Hand a file of requests to the fleet, and print the run's id.

    The file is looked at as by `batch run`. A process of `modelserver batches`, which
    is part of `modelserver up`, carries it out, also when this terminal is closed. The
    same command again submits nothing twice.
    """
    refuse_places(source, output)
    paths, settings = BatchPaths(absolute(output)), load()
    store, made = connect(settings), parse_options(more)
    path = Path(source)
    is_pipe = source == "-" or path.is_fifo()
    if is_pipe:
        keep_pipe(source, paths)
        path = paths.input
    opened = Source(absolute(path), form=form or "")
    known = find_submitted(store, paths)
    if known is not None and _is_there(store, known, opened, paths, made):
        _say(known, f"is there already, {known.state(store.now())}", as_json)
        return
    job = BatchRun(default_client(), opened, paths, made)
    try:
        prepare(job, as_json)
    except BaseException:
        if is_pipe and not paths.journal.exists():
            paths.input.unlink(missing_ok=True)
        raise
    finally:
        job.close()
    submitter = (settings.host, find_user())
    submitted = submit_run(store, job, submitter, weight, is_sorted)
    found = HostedRun(submitted)
    rows = f"{submitted.rows:,} row{'s' * (submitted.rows != 1)}"
    _say(found, f"is submitted, {rows}", as_json)
    if reason := find_obstacle(found, read_holders(store), store.now()):
        click.echo(f"it waits: {reason}", err=True)


def _is_there(
    store: Store,
    known: HostedRun,
    source: Source,
    paths: BatchPaths,
    options: BatchOptions,
) -> bool:
    """Whether this very run is there and goes on. Raises where it is another one."""
    state = known.state(store.now())
    if state in (RunState.CANCELLED, RunState.FAILED):
        return False
    journal = Journal.read(paths.journal)
    if journal is not None:
        journal.check_same(source.digest(), options.kept(), paths.output)
    return state != RunState.COMPLETED or _is_whole(known, paths)


def _is_whole(known: HostedRun, paths: BatchPaths) -> bool:
    """Whether a run that is completed still has its files."""
    counts = known.report.get("request_counts", {})
    written = {paths.output: "completed", paths.errors: "failed"}
    return all(path.exists() or not counts.get(of) for path, of in written.items())


def _say(found: HostedRun, told: str, as_json: bool) -> None:
    run = found.run
    if as_json:
        print_json({"id": run.id, "output": run.output, "rows": run.rows})
        return
    click.echo(f"run {run.id} {told}; `modelserver batch watch {run.id}`", err=True)
    click.echo(run.id)


@click.command()
@click.argument("name", metavar="ID")
def cancel(name: str) -> None:
    """End a run: rows that have not begun are taken back, answers stay.

    `modelserver batch resume ID` goes on with it all the same.
    """
    told = _order(name, RunOrder.CANCEL)
    click.echo(f"{told}; what is answered stays in its output")


@click.command()
@click.argument("name", metavar="ID")
def pause(name: str) -> None:
    """Let a run rest: rows that have not begun are taken back until `resume`."""
    told = _order(name, RunOrder.PAUSE)
    click.echo(f"{told}; `modelserver batch resume` goes on")


def _order(name: str, order: RunOrder) -> str:
    """Have it done, and say how the run stands then."""
    store = connect(load())
    found = find_run(store, name)
    run = found.run.id
    order_run(default_client(), store, found, order)
    until = time.monotonic() + ORDER_SECONDS
    while True:
        state = find_run(store, run).state(store.now())
        is_done = state not in (RunState.PAUSING, RunState.CANCELLING)
        if is_done or time.monotonic() > until:
            return f"run {run} is {state}"
        time.sleep(0.2)


@click.command()
@click.argument("name", metavar="ID")
def resume(name: str) -> None:
    """Go on with a run that was paused or cancelled, or that failed."""
    store = connect(load())
    found = find_run(store, name)
    resume_run(store, found)
    click.echo(f"run {found.run.id} goes on")
    with suppress(IndexError):
        (again,) = read_hosted(store, [found.run.id])
        if reason := find_obstacle(again, read_holders(store), store.now()):
            click.echo(f"it waits: {reason}", err=True)
