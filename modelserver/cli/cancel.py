"""``modelserver cancel``: end requests that nobody wants any more."""

import asyncio

import click

from modelserver.control.applied_fleet import in_force
from modelserver.errors import RequestError, UnknownModelError
from modelserver.operations.cancelling import cancel_requests
from modelserver.settings import load
from modelserver.store import connect


@click.command()
@click.option("--submitter", default="", metavar="NAME", help="Whose requests.")
@click.option("--model", default="", metavar="NAME", help="Requests to this model.")
@click.option("--running", "also_running", is_flag=True, help="Those on engines too.")
def cancel(submitter: str, model: str, also_running: bool) -> None:
    """End requests that wait: their callers get TaskRevokedError."""
    if not (submitter or model):
        raise RequestError("name a --submitter, a --model or both")
    settings = load()
    store = connect(settings)
    settings = in_force(store, settings)
    store.client.close()
    names = [spec.name for spec in settings.fleet.specs()]
    models = [model] if model else names
    ended = asyncio.run(cancel_requests(settings, models, submitter, also_running))
    if not (model in ("", *names) or ended.waiting or ended.running):
        raise UnknownModelError(
            f'nothing waits for "{model}", which is no model of the fleet; there are: '
            + ", ".join(names)
        )
    click.echo(f"{ended.waiting} waiting requests cancelled")
    if also_running:
        click.echo(f"{ended.running} running requests ended")
