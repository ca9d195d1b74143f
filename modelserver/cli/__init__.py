"""The command line: starts programs, shows and asks; it decides nothing.

What is shown:

- ``status``: ``status`` and ``models``, the fleet as it is
- ``why``: how an engine or a model stands, and which decisions led to it; with
  ``why_host``, how a host does
- ``alerts``: what people were told
- ``incidents``: what this host keeps of engines that ended
- ``dead``: requests that engines died of
- ``probes``: ``latency`` and ``fastest``, engines side by side
- ``alive``: whether a part works, for probes
- ``doctor``: problems of this host and this fleet
- ``metrics``: the fleet for Prometheus
- ``ui``: the fleet page
- ``top``, drawn by ``top_frame``: the same live in the terminal

What is ordered:

- ``batch``: files of requests
- ``apply``: puts a fleet file in force
- ``cancel``: ends requests that nobody wants any more
- ``keys``: ``keys`` and ``usage``, of OpenAI's API
- ``relaunch``: starts an engine anew
- ``drain``: ``drain``, ``undrain``, ``pause`` and ``resume``
- ``hosts``: ``drain-host``, ``undrain-host`` and ``move``

What is started:

- ``programs``: ``worker``, ``beat``, ``flower`` and ``launcher``; ``flower_options``
  says that Flower's port is taken, and who may come in
- ``valkey``: the embedded server alone
- ``batches``: what carries out submitted runs
- ``worker_processes``: how many workers a host runs
- ``program_group``: several programs of one host as one
- ``slurm``: hosts as jobs of Slurm; ``slurm_steps`` where one job is several
- ``units``: a host's programs as units of systemd
- ``engines``: the programs that install what engines run in
- ``weights``: the program that fetches models' files
- ``serve``: OpenAI's HTTP in front of the fleet
- ``up``: everything on this machine
- ``join``: ``join`` and ``leave``, this machine as a host of a fleet
- ``demo``, with ``demo_load`` and ``demo_batch``: the main job on this machine
- ``local_stack``: the programs of ``up`` and ``demo``

What the others share: ``output`` prints tables and JSON, ``listening`` is where a
command listens, ``stopping`` ends it at a signal,
``host_part`` which commands need more than the client, ``lazy_group`` imports commands
when they are asked for, and ``__main__`` is for ``python -m modelserver.cli``.
"""

import io
import os
import sys

import click

from modelserver.cli.host_part import HOST_COMMANDS, find_lack, refusing
from modelserver.cli.lazy_group import CommandPlace, LazyGroup
from modelserver.disk_errors import is_of_disk, with_remedy
from modelserver.errors import ConfigurationError, ModelserverError

#: Where each command is, and what `modelserver --help` says of it.
COMMANDS = {
    "alerts": CommandPlace(
        "alerts", 'List alerts, newest last; those that still stand are "open".'
    ),
    "alive": CommandPlace(
        "alive",
        "Exit with status 0 if PART works on this host, else with 1 and the reason.",
    ),
    "apply": CommandPlace(
        "apply", "Make FILE, or else the fleet file, what the whole fleet goes by."
    ),
    "batch": CommandPlace(
        "batch.group", "Run files of requests in the form of OpenAI's Batch API."
    ),
    "batches": CommandPlace(
        "batches", "Carry out the runs of `batch submit` whose files this host sees."
    ),
    "beat": CommandPlace(
        "programs", "Start control every few seconds: celery beat ARGS."
    ),
    "cancel": CommandPlace(
        "cancel", "End requests that wait: their callers get TaskRevokedError."
    ),
    "dead": CommandPlace("dead", "List dead letters, send them again or forget them."),
    "demo": CommandPlace(
        "demo",
        "Run the main job on real engines, with kills half-way, and count the answers.",
    ),
    "doctor": CommandPlace(
        "doctor", "Check this host and this fleet; exit 1 if there is a problem."
    ),
    "drain": CommandPlace(
        "drain", "Send ENGINE nothing new until ``undrain``; what it has it finishes."
    ),
    "drain-host": CommandPlace(
        "hosts", "Move the engines of HOST elsewhere, until ``undrain-host``."
    ),
    "engines": CommandPlace(
        "engines", "Install, check and remove the environments that engines run in."
    ),
    "fastest": CommandPlace(
        "probes", "Find the engine of MODEL that answers a probe first."
    ),
    "flower": CommandPlace(
        "programs", "Show workers and requests in the browser: celery flower ARGS."
    ),
    "incidents": CommandPlace(
        "incidents",
        "List this host's incidents: engines that hung, died or never got ready.",
    ),
    "join": CommandPlace(
        "join", "Make this machine a host of the fleet at URL (redis://HOST:6379/0)."
    ),
    "keys": CommandPlace(
        "keys", "API keys of OpenAI's API (see serve): who may ask, for what, how much."
    ),
    "latency": CommandPlace(
        "probes",
        "Probe every ready engine, of MODEL or of all, and show what each answers.",
    ),
    "launcher": CommandPlace("programs", "Run the engines of this host."),
    "leave": CommandPlace(
        "join",
        "Stop what join started on this machine; its work goes to other hosts.",
    ),
    "metrics": CommandPlace(
        "metrics", "Serve metrics of the whole fleet for Prometheus, until Ctrl-C."
    ),
    "models": CommandPlace(
        "status",
        "Show which models there are, their ready engines and what waits for them.",
    ),
    "move": CommandPlace(
        "hosts", "Move ENGINE to HOST, where it stays until --anywhere."
    ),
    "pause": CommandPlace(
        "drain", "Have control take no action on MODEL or ENGINE until ``resume``."
    ),
    "relaunch": CommandPlace(
        "relaunch",
        "Drain ENGINE, end it and start it again; a FATAL one is tried again.",
    ),
    "resume": CommandPlace("drain", "Let control take care of MODEL or ENGINE again."),
    "serve": CommandPlace(
        "serve", "Serve OpenAI's HTTP API in front of the fleet, until Ctrl-C."
    ),
    "slurm": CommandPlace(
        "slurm", "Write a job script that makes a host of the fleet: for `sbatch`."
    ),
    "slurm-job": CommandPlace(
        "slurm",
        "Be a host of the fleet for as long as this job may: its launcher and worker.",
    ),
    "status": CommandPlace(
        "status", "Show models, engines, hosts, workers and what waits."
    ),
    "top": CommandPlace(
        "top", "Show models, engines, GPUs, runs and alerts live; q or Ctrl-C ends it."
    ),
    "ui": CommandPlace("ui", "Show the fleet in the browser, until Ctrl-C."),
    "undrain": CommandPlace("drain", "Let ENGINE serve again."),
    "undrain-host": CommandPlace("hosts", "Let HOST have engines again."),
    "units": CommandPlace("units", "This host's programs under systemd."),
    "up": CommandPlace(
        "up", "Start all programs of a fleet here; stop them on Ctrl-C."
    ),
    "usage": CommandPlace(
        "keys", "Show what API keys used: by key, model and day (UTC)."
    ),
    "valkey": CommandPlace(
        "valkey", "Run the embedded server alone, as `up` does beside the rest."
    ),
    "weights": CommandPlace("weights", "Have the files of models on this host's disk."),
    "why": CommandPlace(
        "why", "Say how an ENGINE, a MODEL or a HOST stands, and what led to it."
    ),
    "worker": CommandPlace(
        "programs", "Execute requests on this host's engines: celery worker ARGS."
    ),
}


class Commands(LazyGroup):
    """The commands; those that run a host say so where that part is missing."""

    def find_refusal(self, name: str) -> click.Command | None:
        """What stands for a command that needs ``modelserver[host]``."""
        if name in HOST_COMMANDS and (lack := find_lack()):
            return refusing(name, lack)
        return None


@click.group(
    cls=Commands,
    places=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="modelserver")
def cli() -> None:
    """Completions and embeddings as Celery tasks, on engines of your own.

    The fleet file is fleet.toml in this folder, or what MODELSERVER_FLEET names.
    """
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


def main() -> None:
    """Run the command line: exit 2 for a wrong configuration, 1 for other errors."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a reason or an answer says may be more than this terminal can show.
        sys.stdout.reconfigure(errors="replace")
    try:
        cli()
    except ConfigurationError as error:
        click.echo(f"modelserver: {error}", err=True)
        sys.exit(2)
    except ModelserverError as error:
        click.echo(f"modelserver: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if not is_of_disk(error):
            raise
        click.echo(f"modelserver: {with_remedy(error)}", err=True)
        sys.exit(1)
