"""The command line: starts programs, shows and asks; it decides nothing.

What is shown:

- ``status``: ``status`` and ``models``, the fleet as it is
- ``why``: how an engine or a model stands, and which decisions led to it; with
  ``why_host``, how a host does
- ``alerts``: what people were told
- ``incidents``: what this host keeps of engines that ended
- ``dead``: requests that engines died of
- ``probes``: ``latency`` and ``fastest``, engines side by side
- ``doctor``: problems of this host and this fleet
- ``metrics``: the fleet for Prometheus

What is ordered:

- ``batch``, with ``batch_panel`` and ``batch_report``: runs a file of requests
- ``batch_hosted`` and ``batch_watch``: the other commands of ``batch``, for runs that
  the fleet carries out
- ``apply``: puts a fleet file in force
- ``cancel``: ends requests that nobody wants any more
- ``keys``: ``keys`` and ``usage``, of OpenAI's API
- ``relaunch``: starts an engine anew
- ``drain``: ``drain``, ``undrain``, ``pause`` and ``resume``
- ``hosts``: ``drain-host``, ``undrain-host`` and ``move``

What is started:

- ``programs``: ``worker``, ``beat``, ``flower`` and ``launcher``
- ``batches``: what carries out submitted runs
- ``worker_processes``: several workers of one host as one program
- ``engines``: the programs that install what engines run in
- ``serve``: OpenAI's HTTP in front of the fleet
- ``up``: everything on this machine
- ``demo``, with ``demo_load`` and ``demo_batch``: the main job on this machine
- ``local_stack``: the programs of ``up`` and ``demo``

What the others share: ``output`` prints tables and JSON, ``decision_text`` puts
decisions into words, and ``__main__`` is for ``python -m modelserver.cli``.
"""

import sys

import click

from modelserver.cli.alerts import alerts
from modelserver.cli.apply import apply
from modelserver.cli.batch import batch
from modelserver.cli.batch_hosted import cancel as cancel_run
from modelserver.cli.batch_hosted import list_runs, submit
from modelserver.cli.batch_hosted import pause as pause_run
from modelserver.cli.batch_hosted import resume as resume_run
from modelserver.cli.batch_watch import results, watch
from modelserver.cli.batches import batches
from modelserver.cli.cancel import cancel
from modelserver.cli.dead import dead
from modelserver.cli.demo import demo
from modelserver.cli.doctor import doctor
from modelserver.cli.drain import drain, pause, resume, undrain
from modelserver.cli.engines import engines
from modelserver.cli.hosts import drain_host, move, undrain_host
from modelserver.cli.incidents import incidents
from modelserver.cli.keys import keys, usage
from modelserver.cli.metrics import metrics
from modelserver.cli.probes import fastest, latency
from modelserver.cli.programs import beat, flower, launcher, worker
from modelserver.cli.relaunch import relaunch
from modelserver.cli.serve import serve
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
    batch,
    batches,
    beat,
    cancel,
    dead,
    demo,
    doctor,
    drain,
    drain_host,
    engines,
    fastest,
    flower,
    incidents,
    keys,
    latency,
    launcher,
    metrics,
    models,
    move,
    pause,
    relaunch,
    resume,
    serve,
    status,
    undrain,
    undrain_host,
    up,
    usage,
    why,
    worker,
):
    cli.add_command(command)

for command in (
    submit,
    list_runs,
    watch,
    results,
    pause_run,
    resume_run,
    cancel_run,
):
    batch.add_command(command)


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
