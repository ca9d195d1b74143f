"""``modelserver batches``: carries out submitted runs, until a signal ends it."""

import signal

import click

from modelserver.api import client
from modelserver.cli.batch.report import report
from modelserver.cli.programs import load_with_fleet
from modelserver.logs import start_logging
from modelserver.runs.hosting.holder import Holder


@click.command()
def batches() -> None:
    """Carry out the runs of `batch submit` whose files this host sees.

    Start it on any host, as often as wanted: each run is carried out by one of them,
    and goes on in another one when that dies.
    """
    settings = load_with_fleet()
    start_logging(settings.json_logs)
    holder = Holder(client(settings), settings, report)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: holder.stop())
    holder.run()
