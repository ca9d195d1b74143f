"""``modelserver apply``: shows what a changed fleet file changes, and has it done."""

import dataclasses
import os
import sys
import time
from pathlib import Path

import click

from modelserver.cli.output import seconds as show
from modelserver.cli.programs import load_with_fleet
from modelserver.control.applied_fleet import Applied
from modelserver.control.applying import (
    Convergence,
    Proposal,
    Settling,
    find_missing,
    propose,
    put_in_force,
)
from modelserver.errors import ModelserverError
from modelserver.fleet.file import read_fleet
from modelserver.settings import Settings, load
from modelserver.store import Store, connect

#: How often the fleet is looked at while it changes, in seconds.
SETTLING_LOOK_SECONDS = 0.5
#: How long to wait for the fleet unless told otherwise, in seconds.
APPLY_WAIT_SECONDS = 1800.0


@click.command()
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--yes", "-y", is_flag=True, help="Apply without asking.")
@click.option("--dry-run", is_flag=True, help="Show the changes and apply nothing.")
@click.option(
    "--force", is_flag=True, help="Remove models that requests wait for, too."
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=APPLY_WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait for the engines; with 0 it does not wait.",
)
def apply(
    file: Path | None, yes: bool, dry_run: bool, force: bool, wait_seconds: float
) -> None:
    """Make FILE, or else the fleet file, what the whole fleet goes by.

    Engines whose section did not change are left alone. The others restart a few at a
    time; what is removed finishes its requests first.
    """
    settings = _settings(file)
    store = connect(settings)
    source = file or settings.fleet_file
    proposal = propose(store, settings)
    if proposal.before is not None and proposal.changes_nothing:
        version = proposal.before.version
        click.echo(f"{source} is what version {version} says; nothing to do")
        return
    _show(source, proposal)
    if dry_run:
        return
    refusal = proposal.find_refusal()
    if refusal and not force:
        raise ModelserverError(refusal)
    if not yes:
        _ask()
    applied = put_in_force(store, settings, proposal)
    click.echo(f"Version {applied.version} is in force.")
    if wait_seconds:
        _wait(store, applied, proposal.changes.touched, wait_seconds)


def _settings(file: Path | None) -> Settings:
    """What to apply, and where: ``[redis]`` is that of this folder's fleet file."""
    if file is None:
        return load_with_fleet()
    here = load()
    if not here.fleet_file.is_file():
        return load({**os.environ, "MODELSERVER_FLEET": str(file.absolute())})
    fleet = read_fleet(file).model_copy(update={"redis": here.fleet.redis})
    return dataclasses.replace(here, fleet=fleet)


def _show(source: Path, proposal: Proposal) -> None:
    before = proposal.before
    against = "no fleet applied so far"
    if before is not None:
        ago = show(max(0.0, proposal.at - before.at))
        against = f"version {before.version}, applied by {before.by} {ago} ago"
    click.echo(f"{source} against {against}:")
    for line in proposal.lines():
        click.echo(f"  {line}")
    click.echo(f"In all: {proposal.changes.summary()}.")


def _ask() -> None:
    if not sys.stdin.isatty():
        raise ModelserverError("nothing was applied: nobody to ask here; say --yes")
    click.confirm("Apply this?", abort=True)


def _wait(
    store: Store, applied: Applied, models: frozenset[str], within: float
) -> None:
    """Wait until these models' engines are as applied; show what is still missing.

    Raises ModelserverError where they are not ``within`` seconds, or cannot be.
    """
    began = time.monotonic()
    convergence, shown = Convergence(began, within, now=began), set[str]()
    while True:
        missing = find_missing(store, applied, models)
        convergence = convergence.after(missing, time.monotonic())
        texts = [end.what for end in convergence.to_tell()]
        for text in texts:
            if text not in shown:
                click.echo(f"  {text}")
        shown = set(texts)
        match convergence.settling():
            case Settling.UNATTENDED:
                click.echo("No launcher reports: it takes effect when one is started.")
                return
            case Settling.DONE:
                took = convergence.now - began
                click.echo(f"The fleet is as the file says after {took:.1f} s.")
                return
            case Settling.STUCK:
                raise _unfinished(applied, convergence, "it cannot get there")
            case Settling.LATE:
                why = f"not so after {within:g} s"
                raise _unfinished(applied, convergence, why)
        time.sleep(SETTLING_LOOK_SECONDS)


def _unfinished(
    applied: Applied, convergence: Convergence, why: str
) -> ModelserverError:
    missing = "; ".join(end.what for end in convergence.missing or ())
    return ModelserverError(
        f"version {applied.version} is in force, but {why}: {missing}; "
        "see `modelserver status`"
    )
