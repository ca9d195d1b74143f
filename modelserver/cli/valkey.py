"""``modelserver valkey``: the server of a first try, alone."""

import os

import click

from modelserver.cli.programs import load_with_fleet
from modelserver.errors import ConfigurationError
from modelserver.operations import embedded_valkey


@click.command()
def valkey() -> None:
    """Run the embedded server alone, as `up` does beside the rest."""
    settings = load_with_fleet()
    if not settings.embedded:
        raise ConfigurationError(
            f"{settings.fleet_file} names a Redis of its own; there is none to start"
        )
    server = embedded_valkey.prepare(settings.make_run_dir())
    server.announce()
    os.execv(server.argv[0], server.argv)
