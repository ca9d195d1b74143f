"""Starts modelserver's programs in the folder that holds them.

Celery finds ``tasks`` by the working directory, so that is changed before the program
starts; otherwise a ``tasks.py`` of the user's own would be taken instead.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click

import modelserver
from modelserver.cli.flower_options import given, refuse_taken_port, tell_login
from modelserver.cli.program_group import ProgramGroup
from modelserver.cli.worker_processes import (
    NAMING,
    count_cores,
    find_processes,
    refuse_names,
)
from modelserver.errors import ConfigurationError
from modelserver.fleet.key import KEY_FILE_VARIABLE
from modelserver.page.password import find_password
from modelserver.settings import FLEET_FILE, Settings, load

#: For commands that hand arguments which they do not know to the program they start.
PASS_THROUGH = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


def programs_folder() -> Path:
    """The folder with tasks/ and launcher/: the package of a wheel, or the checkout."""
    package = Path(str(modelserver.__file__)).resolve().parent
    for folder in (package, package.parent):
        if (folder / "tasks").is_dir() and (folder / "launcher").is_dir():
            return folder
    raise ConfigurationError(
        f"neither {package} nor the folder above it holds tasks/ and launcher/; "
        "install modelserver again"
    )


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment, for a program in another working directory."""
    found = {
        **os.environ,
        "MODELSERVER_FLEET": str(settings.fleet_file),
        "MODELSERVER_HOME": str(settings.home),
    }
    if settings.password_file:
        found["MODELSERVER_PASSWORD_FILE"] = str(settings.password_file)
    if settings.shared_home:
        found["MODELSERVER_ENGINES_HOME"] = str(settings.shared_home)
    if key_file := os.environ.get(KEY_FILE_VARIABLE):
        found[KEY_FILE_VARIABLE] = str(Path(key_file).absolute())
    return found


def python_program(*arguments: str) -> list[str]:
    """The argv of a Python module run by this interpreter."""
    return [sys.executable, "-m", *arguments]


def replace_process(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by a program that runs in that folder."""
    os.chdir(programs_folder())
    sys.stdout.flush()
    os.execve(argv[0], argv, env)


def load_with_fleet() -> Settings:
    """The settings; ConfigurationError where there is no fleet file."""
    settings = load()
    if not settings.fleet_file.is_file():
        raise ConfigurationError(
            f"there is no fleet file {settings.fleet_file}; go to the folder that has "
            f"your {FLEET_FILE}, or set MODELSERVER_FLEET to it"
        )
    return settings


def _celery(*arguments: str) -> NoReturn:
    argv = python_program("celery", "-A", "tasks", *arguments)
    replace_process(argv, environment(load_with_fleet()))


@click.command(context_settings=PASS_THROUGH)
@click.option(
    "--processes",
    help="How many workers run here, or auto; workers.processes of the fleet file.",
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def worker(processes: str | None, args: tuple[str, ...]) -> None:
    """Execute requests on this host's engines: celery worker ARGS.

    Files that ARGS name need absolute paths.
    """
    settings = load_with_fleet()
    asked = str(settings.fleet.workers.processes) if processes is None else processes
    number = find_processes(asked, settings.fleet, count_cores())
    if number == 1:
        named = any(arg.startswith(NAMING) for arg in args)
        # As the fleet calls this host, whatever the machine is called.
        name = () if named else ("-n", f"celery@{settings.host}")
        _celery("worker", *name, *args)
    refuse_names(args)
    commands = {
        name: python_program("celery", "-A", "tasks", "worker", "-n", name, *args)
        for name in (f"worker@{settings.host}-{rank}" for rank in range(number))
    }
    group = ProgramGroup(commands, programs_folder(), environment(settings), click.echo)
    sys.exit(group.run())


@click.command(context_settings=PASS_THROUGH)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def beat(args: tuple[str, ...]) -> None:
    """Start control every few seconds: celery beat ARGS.

    Files that ARGS name need absolute paths.
    """
    run_dir = load_with_fleet().make_run_dir()
    _celery("beat", "--schedule", str(run_dir / "celerybeat-schedule"), *args)


@click.command(context_settings=PASS_THROUGH)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def flower(args: tuple[str, ...]) -> None:
    """Show workers and requests in the browser: celery flower ARGS.

    Its user is modelserver, and its password that of `modelserver ui`.
    """
    refuse_taken_port(args, os.environ)
    if auth := given("auth", args, os.environ):
        os.environ["FLOWER_AUTH"] = auth  # So that its settings ask for nothing more.
    password = find_password(load_with_fleet())
    told = tell_login(password, sys.stdout.isatty(), args, os.environ)
    click.echo(f"Flower has {told}")
    _celery("flower", *args)


@click.command(context_settings=PASS_THROUGH)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def launcher(args: tuple[str, ...]) -> None:
    """Run the engines of this host."""
    replace_process(python_program("launcher", *args), environment(load_with_fleet()))
