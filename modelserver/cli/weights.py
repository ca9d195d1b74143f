"""``modelserver weights``: has models' files on this host before engines need them."""

import click

from modelserver.cli.programs import (
    environment,
    load_with_fleet,
    python_program,
    replace_process,
)


@click.group()
def weights() -> None:
    """Have the files of models on this host's disk."""


@weights.command()
@click.argument("model")
@click.option("--refresh", is_flag=True, help="Ask the hub again for a complete model.")
def pull(model: str, refresh: bool) -> None:
    """Fetch the files of MODEL from the hub, once for this host.

    Engines of a model that is complete start without asking the hub. A hub that has
    had too many requests is waited for.
    """
    settings = load_with_fleet()
    argv = python_program("launcher.weights_pull", model)
    replace_process([*argv, *(["--refresh"] if refresh else [])], environment(settings))
