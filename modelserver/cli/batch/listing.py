"""``modelserver batch list``: submitted runs, and those that a program carries out."""

from collections.abc import Mapping
from typing import Any

import click
from rich.markup import escape

from modelserver.cli.output import FittingTable, console, print_json, seconds, table
from modelserver.runs.hosting.telling import RunView
from modelserver.runs.listed import (
    ListedRun,
    in_order,
    list_program_run,
    list_submitted,
)
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.runs.hosted import (
    SubmittedRun,
    ended_ids,
    open_ids,
    read_holders,
    read_hosted,
)
from modelserver.store.runs.programs import read_program_runs

#: Runs that have ended and are listed, the last ones.
MOST_LISTED = 20
#: What runs are listed without first where a screen is narrow.
SPARE_COLUMNS = ("holder", "age", "failed", "requests/s", "ETA")


@click.command("list")
@click.option("--all", "is_all", is_flag=True, help="All that ended in 30 days, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_runs(is_all: bool, as_json: bool) -> None:
    """List submitted runs, and the last ones that have ended.

    Runs of map_prompts, map_rows, embed_texts and `batch run` are listed for a day. One
    that is "silent" has not told for 15 seconds how far it is: its program was killed
    or stopped, or cannot reach Redis.
    """
    store = connect(load())
    with store.reachable():
        ended = ended_ids(store)
        ids = [*open_ids(store), *(ended if is_all else ended[:MOST_LISTED])]
        runs, holders = read_hosted(store, ids, whole=True), read_holders(store)
        programs, now = read_program_runs(store), store.now()
    found = [list_submitted(each, RunView(each), holders, now) for each in runs]
    found += [list_program_run(each, now) for each in programs]
    listed = in_order(found, len(found) if is_all else MOST_LISTED)
    if as_json:
        submitted = {each.run.id: each.run for each in runs}
        print_json([_entry(each, submitted, now) for each in listed])
    elif not listed:
        click.echo("no runs; submit one with `modelserver batch submit`")
    else:
        _show(listed, now)


def _entry(
    listed: ListedRun, submitted: Mapping[str, SubmittedRun], now: float
) -> dict[str, Any]:
    run, rate = submitted.get(listed.id), listed.rate
    return {
        "id": listed.id,
        "file": listed.source,
        "output": run.output if run else None,
        "state": listed.state,
        "reason": listed.note,
        "rows": listed.total,
        "answered": listed.answered,
        "failed": listed.failed,
        "requests_per_second": None if rate is None else round(rate, 2),
        "eta_seconds": listed.eta_seconds,
        "holder": listed.holder or None,
        "submitted_on": listed.host,
        "submitted_by": listed.user,
        "submitted_at": listed.began_at,
        "age_seconds": round(now - listed.began_at, 1),
        "weight": run.weight if run else None,
        "priority": run.options.get("priority") if run else None,
    }


def _show(listed: list[ListedRun], now: float) -> None:
    numbers = ("done", "failed", "all", "requests/s", "ETA", "age")
    columns = ("id", "state", *numbers[:5], "age", "holder", "file")
    made = table("Runs", *columns, numbers=numbers)
    for each in listed:
        made.add_row(
            each.id,
            each.state,
            f"{each.answered:,}",
            f"{each.failed:,}",
            "?" if each.total is None else f"{each.total:,}",
            "-" if each.rate is None else f"{each.rate:,.1f}",
            seconds(each.eta_seconds),
            seconds(now - each.began_at),
            each.holder or "-",
            escape(each.source),
        )
    screen = console()
    screen.print(FittingTable(made, SPARE_COLUMNS))
    for each in listed:
        if each.note:
            told = f"{each.id} {each.state}: {each.note}"
            screen.print(told, markup=False, highlight=False, soft_wrap=True)
