"""``modelserver relaunch``: end an engine and start it again, FATAL ones too."""

import click

from modelserver.cli.operator import find_operator
from modelserver.operations import orders
from modelserver.settings import load
from modelserver.store import connect


@click.command()
@click.argument("engine")
def relaunch(engine: str) -> None:
    """Drain ENGINE, end it and start it again; a FATAL one is tried again."""
    incarnation = orders.relaunch(connect(load()), engine, find_operator())
    click.echo(f"{engine}: incarnation {incarnation} goes, the next one comes")
