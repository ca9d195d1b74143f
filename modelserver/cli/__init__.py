"""The command line. It starts programs and reads the store, and decides nothing."""

import sys

import click

from modelserver.cli.alerts import alerts
from modelserver.cli.apply import apply
from modelserver.cli.dead import dead
from modelserver.cli.demo import demo
from modelserver.cli.doctor import doctor
from modelserver.cli.drain import drain, pause, resume, undrain
from modelserver.cli.engines import engines
from modelserver.cli.incidents import incidents
from modelserver.cli.metrics import metrics
from modelserver.cli.probes import fastest, latency
from modelserver.cli.programs import beat, flower, launcher, worker
from modelserver.cli.relaunch import relaunch
from modelserver.cli.status import models, status
from modelserver.cli.up import up
from modelserver.cli.why import why
from modelserver.errors import ConfigurationError, ModelserverError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelserver")
def cli() -> None:
    """Completions and embeddings as Celery tasks, on engines of your own.

    The fleet file is fleet.toml in this folder, or what MODELSERVER_FLEET names.
    """


for command in (
    alerts,
    apply,
    beat,
    dead,
    demo,
    doctor,
    drain,
    engines,
    fastest,
    flower,
    incidents,
    latency,
    launcher,
    metrics,
    models,
    pause,
    relaunch,
    resume,
    status,
    undrain,
    up,
    why,
    worker,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line: exit 2 for a wrong configuration, 1 for other errors."""
    try:
        cli()
    except ConfigurationError as error:
        click.echo(f"modelserver: {error}", err=True)
        sys.exit(2)
    except ModelserverError as error:
        click.echo(f"modelserver: {error}", err=True)
        sys.exit(1)
