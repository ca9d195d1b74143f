"""``modelserver alerts``: lists what people were told, and closes alerts."""

import dataclasses

import click
from rich.markup import escape

from modelserver.cli.output import console, print_json, table
from modelserver.operations.words import clock
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.fleet.alerts import (
    AlertRecord,
    close_alerts,
    counts,
    last_alerts,
    open_alerts,
)


@click.command()
@click.option(
    "--close", metavar="ABOUT", help='Close the open alerts about this, or "all".'
)
@click.option(
    "-n", "number", default=20, show_default=True, help="Number of alerts to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def alerts(close: str | None, number: int, as_json: bool) -> None:
    """List alerts, newest last; those that still stand are "open".

    In the JSON: open, last, counts.
    """
    store = connect(load())
    with store.reachable():
        if close:
            for each in close_alerts(store, close):
                click.echo(f"{each.about}: closed: {each.text}")
            return
        stand, last = open_alerts(store), last_alerts(store, number)
        totals = counts(store)
    if as_json:
        shown = {"open": _plain(stand), "last": _plain(last), "counts": totals}
        print_json(shown)
        return
    made = table("Alerts", "time", "about", "event", "text")
    times = {(each.about, each.kind, each.at) for each in stand}
    for each in last:
        is_open = each.event == "raised" and (each.about, each.kind, each.at) in times
        event = "[red]open[/red]" if is_open else each.event
        made.add_row(clock(each.at), each.about, event, escape(each.text))
    console().print(made if last else "There are no alerts.")


def _plain(found: tuple[AlertRecord, ...]) -> list[dict[str, object]]:
    return [dataclasses.asdict(each) for each in found]
