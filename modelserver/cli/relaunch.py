"""``modelserver relaunch``: end an engine and start it again, FATAL ones too."""

import click

from modelserver.operations import orders
from modelserver.settings import load
from modelserver.store import connect
from modelserver.user import find_user


@click.command()
@click.argument("engine")
def relaunch(engine: str) -> None:
    """Drain ENGINE, end it and start it again; a FATAL one is tried again."""
    incarnation = orders.relaunch(connect(load()), engine, find_user())
    click.echo(f"{engine}: incarnation {incarnation} goes, the next one comes")
