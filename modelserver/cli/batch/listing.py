"""``modelserver batch list``: submitted runs, and those of programs."""

from typing import Any

import click
from rich.markup import escape

from modelserver.cli.output import FittingTable, console, print_json, seconds, table
from modelserver.runs.hosting.choosing import find_obstacle
from modelserver.runs.hosting.telling import RunView
from modelserver.runs.waiting import find_wait
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.runs.hosted import (
    ENDED,
    HolderReport,
    HostedRun,
    ended_ids,
    open_ids,
    read_holders,
    read_hosted,
)
from modelserver.store.runs.programs import (
    ProgramRun,
    ProgramRunState,
    read_program_runs,
)

#: Runs that have ended and are listed, the last ones.
MOST_LISTED = 20
#: The states of what is listed last.
OVER = (*ENDED, ProgramRunState.STOPPED)
#: What runs are listed without first where a screen is narrow.
SPARE_COLUMNS = ("holder", "age", "failed", "requests/s", "ETA")


@click.command("list")
@click.option("--all", "is_all", is_flag=True, help="All that ended in 30 days, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_runs(is_all: bool, as_json: bool) -> None:
    """List submitted runs, and the last ones that have ended.

    Runs of map_prompts, map_rows and embed_texts are listed for a day. One that is
    "silent" has not told for 15 seconds how far it is: its program was killed or
    stopped, or cannot reach Redis.
    """
    store = connect(load())
    with store.reachable():
        ended = ended_ids(store)
        ids = [*open_ids(store), *(ended if is_all else ended[:MOST_LISTED])]
        runs, holders = read_hosted(store, ids, whole=True), read_holders(store)
        programs, now = read_program_runs(store), store.now()
    listed = [_entry(each, holders, now) for each in runs]
    listed += [_program_entry(each, now) for each in programs]
    listed.sort(key=lambda each: each["state"] in OVER)
    if as_json:
        print_json(listed)
    elif not listed:
        click.echo("no runs; submit one with `modelserver batch submit`")
    else:
        _show(listed)


def _entry(
    found: HostedRun, holders: tuple[HolderReport, ...], now: float
) -> dict[str, Any]:
    run, view = found.run, RunView(found)
    tally, is_held = view.tally, found.is_held(now)
    reason = find_obstacle(found, holders, now)
    if is_held:
        reason = reason or find_wait(view)
    return {
        "id": run.id,
        "file": run.source,
        "output": run.output,
        "state": found.state(now),
        "reason": reason,
        "rows": run.rows,
        "answered": tally.answered,
        "failed": tally.failed,
        "requests_per_second": round(tally.rates[0], 2) if is_held else None,
        "eta_seconds": tally.eta_seconds if is_held else None,
        "holder": found.holder if is_held else None,
        "submitted_on": run.host,
        "submitted_by": run.user,
        "submitted_at": run.at,
        "age_seconds": round(now - run.at, 1),
        "weight": run.weight,
        "priority": run.options.get("priority"),
    }


def _program_entry(found: ProgramRun, now: float) -> dict[str, Any]:
    state = found.state(now)
    is_running = state is ProgramRunState.RUNNING
    return {
        "id": found.id,
        "file": f"{found.what} of {found.program or 'a program'}",
        "output": None,
        "state": state,
        "reason": "",
        "rows": found.total,
        "answered": found.done - found.failed,
        "failed": found.failed,
        "requests_per_second": round(found.rate, 2) if is_running else None,
        "eta_seconds": found.eta_seconds if is_running else None,
        "holder": f"{found.host}-{found.pid}",
        "submitted_on": found.host,
        "submitted_by": found.user,
        "submitted_at": found.began_at,
        "age_seconds": round(now - found.began_at, 1),
        "weight": None,
        "priority": None,
    }


def _show(listed: list[dict[str, Any]]) -> None:
    numbers = ("done", "failed", "all", "requests/s", "ETA", "age")
    columns = ("id", "state", *numbers[:5], "age", "holder", "file")
    made = table("Runs", *columns, numbers=numbers)
    for each in listed:
        rate = each["requests_per_second"]
        made.add_row(
            each["id"],
            each["state"],
            *(f"{each[name]:,}" for name in ("answered", "failed")),
            "?" if each["rows"] is None else f"{each['rows']:,}",
            "-" if rate is None else f"{rate:,.1f}",
            seconds(each["eta_seconds"]),
            seconds(each["age_seconds"]),
            each["holder"] or "-",
            escape(each["file"]),
        )
    screen = console()
    screen.print(FittingTable(made, SPARE_COLUMNS))
    for each in listed:
        if each["reason"]:
            told = f"{each['id']} {each['state']}: {each['reason']}"
            screen.print(told, markup=False, highlight=False, soft_wrap=True)
