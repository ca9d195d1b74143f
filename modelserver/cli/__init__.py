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

- ``batch``, with ``batch_panel`` and ``batch_report``: runs a file of requests;
  ``batch_group`` has its subcommands
- ``batch_hosted`` and ``batch_watch``: the other commands of ``batch``, for runs that
  the fleet carries out
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
- ``slurm``: a host as a job of Slurm
- ``units``: a host's programs as units of systemd
- ``engines``: the programs that install what engines run in
- ``weights``: the program that fetches models' files
- ``serve``: OpenAI's HTTP in front of the fleet
- ``up``: everything on this machine
- ``join``: ``join`` and ``leave``, this machine as a host of a fleet
- ``demo``, with ``demo_load`` and ``demo_batch``: the main job on this machine
- ``local_stack``: the programs of ``up`` and ``demo``

What the others share: ``output`` prints tables and JSON, ``listening`` is where a
command listens, ``operator`` who runs it, ``host_part`` which commands need more than
the client, and ``__main__`` is for ``python -m modelserver.cli``.
"""

import sys
from importlib import import_module

import click

from modelserver.cli.host_part import HOST_COMMANDS, find_lack, refusing
from modelserver.errors import ConfigurationError, ModelserverError

#: The module of each command, which has it under its own name with "_" for "-".
COMMANDS = {
    "alerts": "alerts",
    "alive": "alive",
    "apply": "apply",
    "batch": "batch_group",
    "batches": "batches",
    "beat": "programs",
    "cancel": "cancel",
    "dead": "dead",
    "demo": "demo",
    "doctor": "doctor",
    "drain": "drain",
    "drain-host": "hosts",
    "engines": "engines",
    "fastest": "probes",
    "flower": "programs",
    "incidents": "incidents",
    "join": "join",
    "keys": "keys",
    "latency": "probes",
    "launcher": "programs",
    "leave": "join",
    "metrics": "metrics",
    "models": "status",
    "move": "hosts",
    "pause": "drain",
    "relaunch": "relaunch",
    "resume": "drain",
    "serve": "serve",
    "slurm": "slurm",
    "slurm-job": "slurm",
    "status": "status",
    "top": "top",
    "ui": "ui",
    "undrain": "drain",
    "undrain-host": "hosts",
    "units": "units",
    "up": "up",
    "usage": "keys",
    "valkey": "valkey",
    "weights": "weights",
    "why": "why",
    "worker": "programs",
}


class Commands(click.Group):
    """Imports a command when it is asked for: most need little of the whole."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in HOST_COMMANDS and (lack := find_lack()):
            return refusing(cmd_name, lack)
        module = import_module(f"modelserver.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelserver")
def cli() -> None:
    """Completions and embeddings as Celery tasks, on engines of your own.

    The fleet file is fleet.toml in this folder, or what MODELSERVER_FLEET names.
    """


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
