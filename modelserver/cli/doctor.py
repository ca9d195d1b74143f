"""``modelserver doctor``: what stands in the way of this fleet, and its remedies."""

import json
import subprocess
import sys
from functools import partial
from typing import Any

import click

from modelserver.cli.host_part import find_lack
from modelserver.cli.programs import environment, programs_folder, python_program
from modelserver.operations.check import Check
from modelserver.operations.checks import examine
from modelserver.settings import Settings, load


@click.command()
def doctor() -> None:
    """Check this host and this fleet; exit 1 if there is a problem."""
    settings, problems = load(), 0
    ask = None if find_lack() else partial(ask_program, settings)
    for check in examine(settings, ask):
        problems += show(check)
    if problems:
        click.echo(f"{problems} problem{'s' * (problems > 1)} found", err=True)
        sys.exit(1)


def show(check: Check) -> bool:
    """Print a check; True where it is a problem."""
    click.echo(f"{_mark(check)} {check.what}: {check.fact}")
    if check.remedy:
        click.echo(f"        -> {check.remedy}")
    return check.is_problem


def _mark(check: Check) -> str:
    if check.is_problem:
        return click.style("problem", fg="red")
    return click.style("note   ", fg="yellow") if check.remedy else "ok     "


def ask_program(settings: Settings, *program: str) -> dict[str, Any]:
    """What a program of the launcher's prints as JSON."""
    done = subprocess.run(
        python_program(*program),
        cwd=programs_folder(),
        env=environment(settings),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))
