"""``modelserver engines``: installs, checks and removes what engines run in.

The work is done by ``python -m launcher.environments``, which shows its own progress.
"""

from typing import NoReturn

import click

from modelserver.cli.programs import environment, python_program, replace_process
from modelserver.settings import load


def _run(*arguments: str) -> NoReturn:
    settings = load()
    argv = python_program("launcher.environments", "--home", str(settings.engines_home))
    replace_process([*argv, *arguments], environment(settings))


@click.group()
def engines() -> None:
    """Install, check and remove the environments that engines run in."""


@engines.command()
@click.argument("name")
def install(name: str) -> None:
    """Install engine NAME, or NAME==VERSION, on this host.

    Waits while another installation is at work.
    """
    _run("install", name)


@engines.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_engines(as_json: bool) -> None:
    """Show which engines can be installed, and which are."""
    _run("list", *(["--json"] if as_json else []))


@engines.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove the environment of engine NAME, or NAME==VERSION."""
    _run("remove", name)


@engines.command()
def check() -> None:
    """Look for what engines on this host could clash with; exit 1 on a problem."""
    _run("check")
