"""``python -m launcher.environments``: what ``modelserver engines`` starts."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from launcher.environments import RECIPES, Installed, InstallProgress, installed
from launcher.environments import install as install_environment
from launcher.environments import remove as remove_environment
from launcher.environments.check import examine
from launcher.environments.findings import Level
from launcher.environments.recipes import GB, recipe_of
from modelserver.disk_errors import is_of_disk, with_remedy
from modelserver.errors import ConfigurationError

#: The colours of findings on a terminal.
LEVEL_COLOURS = {Level.WARNING: "yellow", Level.PROBLEM: "red"}


class InstallScreen:
    """Shows each step with its reason; into a pipe, one line for each."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)
        self._index = 0

    def __call__(self, progress: InstallProgress) -> None:
        line = f"[{progress.index}/{progress.steps}] {progress.what}: {progress.why}"
        if progress.index != self._index:
            self._index = progress.index
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._bar.update(self._task, description=progress.last_line[:60])


@click.group()
@click.option("--home", type=click.Path(path_type=Path), required=True)
@click.pass_context
def cli(context: click.Context, home: Path) -> None:
    """Engine environments below the home folder."""
    context.obj = home


@cli.command()
@click.argument("name")
@click.pass_obj
def install(home: Path, name: str) -> None:
    """Install engine NAME, or NAME==VERSION."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(), transient=True) as bar:
        done = install_environment(name, home, InstallScreen(bar))
    click.echo(
        f"{done.name} {done.version} is installed in {done.path} "
        f"({done.size_bytes / GB:.1f} GB, torch {done.torch_version})"
    )


@cli.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def list_engines(home: Path, as_json: bool) -> None:
    """Show what can be installed, and what is."""
    rows: dict[str, Installed | None] = dict.fromkeys(RECIPES)
    rows |= {_called(each): each for each in installed(home)}
    if as_json:
        fields = {name: _fields(found) for name, found in rows.items()}
        click.echo(json.dumps(fields, indent=2))
        return
    table = Table("engine", "version", "installed in", "GB", box=None, pad_edge=False)
    for requirement, found in sorted(rows.items()):
        recipe = recipe_of(requirement)
        size = f"{found.size_bytes / GB:.1f}" if found else "-"
        path = str(found.path) if found else "-"
        table.add_row(recipe.name, recipe.version, path, size)
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


@cli.command("needs")
@click.argument("names", nargs=-1)
def show_needs(names: tuple[str, ...]) -> None:
    """Say in JSON how many bytes of disk each engine of NAMES takes at least."""
    click.echo(json.dumps({name: recipe_of(name).needed_bytes for name in names}))


def _called(found: Installed) -> str:
    """By its name alone at the version that is installed by that."""
    usual = RECIPES[found.name].version == found.version
    return found.name if usual else f"{found.name}=={found.version}"


def _fields(found: Installed | None) -> dict[str, object] | None:
    return {**asdict(found), "path": str(found.path)} if found else None


@cli.command()
@click.argument("name")
@click.pass_obj
def remove(home: Path, name: str) -> None:
    """Remove the environment of engine NAME, or NAME==VERSION."""
    remove_environment(name, home)
    click.echo(f"{name} is removed")


@cli.command()
@click.pass_obj
def check(home: Path) -> None:
    """Look for what engines on this host could clash with."""
    problems = 0
    for finding in examine(home, os.environ):
        problems += finding.level is Level.PROBLEM
        mark = click.style(f"{finding.level:<7}", fg=LEVEL_COLOURS.get(finding.level))
        click.echo(f"{mark} {finding.what}: {finding.fact}")
        if finding.remedy:
            click.echo(f"        -> {finding.remedy}")
    if problems:
        click.echo(f"{problems} problem{'s' * (problems > 1)} found", err=True)
        sys.exit(1)


def main() -> None:
    """Run one command; exit 2 where an environment cannot be had."""
    try:
        cli()
    except ConfigurationError as error:
        click.echo(f"modelserver: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if not is_of_disk(error):
            raise
        click.echo(f"modelserver: {with_remedy(error)}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
