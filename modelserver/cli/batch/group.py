"""``modelserver batch`` with its subcommands."""

import click

from modelserver.cli.lazy_group import CommandPlace, LazyGroup

#: Where each subcommand is, and what ``modelserver batch --help`` says of it.
COMMANDS = {
    "cancel": CommandPlace(
        "batch.hosted",
        "End a run: rows that have not begun are taken back, answers stay.",
    ),
    "list": CommandPlace(
        "batch.listing",
        "List submitted runs, and the last ones that have ended.",
        name="list_runs",
    ),
    "pause": CommandPlace(
        "batch.hosted",
        "Let a run rest: rows that have not begun are taken back until `resume`.",
    ),
    "results": CommandPlace(
        "batch.watch",
        "Show the report of a run and where its output lies, or copy the output.",
    ),
    "resume": CommandPlace(
        "batch.hosted",
        "Go on with a run that was paused or cancelled, or that failed.",
    ),
    "run": CommandPlace(
        "batch.run",
        "Answer every request of a file; the same command again goes on after any end.",
    ),
    "submit": CommandPlace(
        "batch.hosted", "Hand a file of requests to the fleet, and print the run's id."
    ),
    "watch": CommandPlace(
        "batch.watch",
        "Show how far a run is, until it has ended; Ctrl-C ends only this.",
    ),
}


@click.group(cls=LazyGroup, places=COMMANDS)
def batch() -> None:
    """Run files of requests in the form of OpenAI's Batch API."""
