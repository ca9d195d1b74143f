"""``modelserver units install``: this host's programs as units of systemd."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from modelserver.cli.local_stack import stop_seconds
from modelserver.cli.programs import load_with_fleet, python_program
from modelserver.errors import ConfigurationError
from modelserver.operations.units import PARTS, TARGET, UnitPlace
from modelserver.operations.units import units as texts
from modelserver.settings import Settings, find_base
from modelserver.user import find_login

#: Where units are that systemd runs for the whole machine.
SYSTEM = Path("/etc/systemd/system")
#: What the programs of the whole machine are told.
SYSTEM_ENVIRONMENT = Path("/etc/modelserver/environment")
#: What the programs are told as whoever installs them is, where that is set.
KEPT = ("MODELSERVER_HOST", "MODELSERVER_ENGINES_HOME")
NAMES = tuple(part.name for part in PARTS)


@click.group()
def units() -> None:
    """This host's programs under systemd."""


@units.command()
@click.option("--user", "own", is_flag=True, help="For your own systemd, not root's.")
@click.option("--as", "user", default="", help="Who runs them, without --user.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(NAMES),
    help="These parts only: launcher and worker on the second and further hosts.",
)
@click.option("--folder", type=click.Path(path_type=Path), help="Where units are put.")
def install(own: bool, user: str, only: tuple[str, ...], folder: Path | None) -> None:
    """Write units for the fleet file, one target for all of them.

    What stands in a file of the environment already is left as it is.
    """
    if own and user:
        raise ConfigurationError(
            f"units of your own systemd run as you; leave out --as {user} or --user"
        )
    settings = load_with_fleet()
    config = find_base("XDG_CONFIG_HOME", ".config", os.environ) if own else Path()
    variables = config / "modelserver/environment" if own else SYSTEM_ENVIRONMENT
    place = UnitPlace(
        program=tuple(python_program("modelserver.cli")),
        environment_file=str(variables),
        folder=str(settings.fleet_file.parent),
        user="" if own else user or os.environ.get("SUDO_USER") or find_login(),
    )
    folder = folder or (config / "systemd/user" if own else SYSTEM)
    try:
        _write_variables(variables, settings)
        folder.mkdir(parents=True, exist_ok=True)
        names = choose(only, settings)
        for name, text in texts(names, place, stop_seconds(settings)):
            (folder / name).write_text(text)
            click.echo(folder / name)
    except PermissionError as error:
        raise ConfigurationError(
            f"{error.filename} cannot be written; run this as root, or say --user"
        ) from error
    systemctl = "systemctl --user" if own else "systemctl"
    click.echo(f"\nVariables, such as HF_TOKEN, are in {variables}")
    click.echo(f"{systemctl} daemon-reload && {systemctl} enable --now {TARGET}")
    if own:
        click.echo(
            "They end when you log out, and start when you log in, unless you run"
        )
        click.echo("loginctl enable-linger")


def choose(only: Sequence[str], settings: Settings) -> list[str]:
    """The parts to write units for. Raises ConfigurationError."""
    server = PARTS[0].name
    if server in only and not settings.embedded:
        raise ConfigurationError(
            f"{settings.fleet_file} has a Redis of its own; leave out --only {server}"
        )
    return [name for name in only or NAMES if name != server or settings.embedded]


def _write_variables(path: Path, settings: Settings) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "MODELSERVER_FLEET": str(settings.fleet_file),
        "MODELSERVER_HOME": str(settings.home),
        **{name: os.environ[name] for name in KEPT if os.environ.get(name)},
    }
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.writelines(lines)
