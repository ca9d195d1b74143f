"""``modelserver apply``: shows what a changed fleet file changes, and has it done."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from modelserver.cli.output import seconds as show
from modelserver.cli.programs import load_with_fleet
from modelserver.control.applied_fleet import (
    TRIES,
    Applied,
    compose,
    publish,
    read,
    sealed,
    spec_of,
)
from modelserver.errors import ModelserverError
from modelserver.fleet import Fleet, read_fleet
from modelserver.policy.changes import Changes, changes
from modelserver.policy.convergence import FleetView, OpenEnd, open_ends
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.store.control import read_steered, read_waiting, read_wishes
from modelserver.store.engines import read_engines
from modelserver.store.hosts import read_hosts
from modelserver.store.workers import read_backlog

#: How often the fleet is looked at while it changes, in seconds.
LOOK_SECONDS = 0.5
#: The fleet counts as settled once it has looked so for this long, in seconds: a wish
#: needs a moment to reach its launcher.
SETTLED_SECONDS = 2.5
#: While control has not looked at it; said after so many seconds.
UNSEEN = (OpenEnd("control has not looked at it yet; that needs beat and a worker"),)
UNSEEN_SECONDS = 6.0
#: How long to wait for the fleet, in seconds, unless told otherwise.
WAIT_SECONDS = 1800.0


@click.command()
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show the difference and end.")
@click.option("--force", is_flag=True, help="Remove models that requests wait for.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait for the engines; 0 waits for none.",
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
    before = read(store, settings)
    found = difference(before, settings.fleet)
    if before is not None and not found:
        source = file or settings.fleet_file
        click.echo(f"{source} is what version {before.version} says; nothing to do")
        return
    waiting = _queued(store, found.removed)
    _show(file or settings.fleet_file, before, found, waiting, store.now())
    if dry_run:
        return
    _allow(found, waiting, yes, force)
    applied = compose(settings.fleet, before, store.now(), _left(store, before, found))
    if not publish(store, applied):
        raise ModelserverError(_overtaken(read(store, settings)))
    click.echo(f"Version {applied.version} is in force.")
    if wait_seconds:
        settle(store, applied, found.touched, wait_seconds, click.echo)


def _settings(file: Path | None) -> Settings:
    """What to apply, and where: ``[redis]`` is that of this folder's fleet file."""
    if file is None:
        return load_with_fleet()
    here = load()
    if not here.fleet_file.is_file():
        return load({**os.environ, "MODELSERVER_FLEET": str(file.absolute())})
    fleet = read_fleet(file).model_copy(update={"redis": here.fleet.redis})
    return dataclasses.replace(here, fleet=fleet)


def difference(before: Applied | None, fleet: Fleet) -> Changes:
    """What applying a file's fleet would change."""
    if before is None:
        new = spec_of(fleet)
        nothing = dataclasses.replace(new, models=(), pins=())
        return changes(nothing, new)
    return changes(before.spec(), spec_of(sealed(fleet, before.salt)))


def _queued(store: Store, models: tuple[str, ...]) -> dict[str, int]:
    backlogs = {model: read_backlog(store, model) for model in models}
    return {model: count for model, count in backlogs.items() if count}


def _waits(waiting: Mapping[str, int]) -> list[str]:
    return [
        f"{count} request{'s wait' if count > 1 else ' waits'} in the queue of {model}"
        for model, count in waiting.items()
    ]


def _show(
    source: Path,
    before: Applied | None,
    found: Changes,
    waiting: Mapping[str, int],
    now: float,
) -> None:
    against = "no fleet applied so far"
    if before is not None:
        ago = show(max(0.0, now - before.at))
        against = f"version {before.version}, applied by {before.by} {ago} ago"
    click.echo(f"{source} against {against}:")
    for line in (*found.lines(), *_waits(waiting)):
        click.echo(f"  {line}")
    click.echo(f"In all: {found.summary()}.")


def _allow(found: Changes, waiting: Mapping[str, int], yes: bool, force: bool) -> None:
    """Raises ModelserverError, or click.Abort, where it is not to be applied."""
    if waiting and not force:
        raise ModelserverError(
            f"nothing was applied: {', '.join(_waits(waiting))}, which is to go; "
            "let them be answered first, or say --force: then they wait there until "
            "the model comes back"
        )
    if yes:
        return
    if not sys.stdin.isatty():
        raise ModelserverError("nothing was applied: nobody to ask here; say --yes")
    click.confirm("Apply this?", abort=True)


def _left(store: Store, before: Applied | None, found: Changes) -> dict[str, str]:
    """Models that are gone and whose queues are still to be seen."""
    if before is None:
        return {}
    kinds = {model.name: model.kind.value for model in before.fleet.models}
    added = {each.name for each in found.models if each.verb == "added"}
    older = {k: v for k, v in before.left.items() if k not in added}
    older = {name: kind for name, kind in older.items() if read_backlog(store, name)}
    return older | {name: kinds[name] for name in found.removed}


def _overtaken(other: Applied | None) -> str:
    who = f"{other.by} applied version {other.version}" if other else "it was lost"
    return (
        f"nothing was applied: {who} at the same time; run `modelserver apply` again "
        "to see the difference to that"
    )


def bring(store: Store, settings: Settings, say: Callable[[str], None]) -> Applied:
    """Apply this program's fleet file without asking, and say what that changes."""
    for _ in range(TRIES):
        before = read(store, settings)
        found = difference(before, settings.fleet)
        if before is not None and not found:
            return before
        left = _left(store, before, found)
        applied = compose(settings.fleet, before, store.now(), left)
        waiting = _queued(store, found.removed)
        if not publish(store, applied):
            continue
        if before is not None:
            say(f"fleet version {applied.version} takes the place of {before.version}:")
            for line in (*found.lines(), *_waits(waiting)):
                say(f"  {line}")
        return applied
    raise ModelserverError("the fleet is being changed by others; try again")


def settle(
    store: Store,
    applied: Applied,
    models: frozenset[str],
    within: float,
    say: Callable[[str], None],
) -> None:
    """Wait until these models' engines are as applied; tells what happens meanwhile.

    Raises ModelserverError where they are not ``within`` seconds, or cannot be.
    """
    began = time.monotonic()
    told, since = set[str](), None
    while True:
        now = time.monotonic()
        ends = _open_ends(store, applied, models)
        if ends is None:
            say("No launcher reports: it takes effect when one is started.")
            return
        if ends != UNSEEN or now - began > UNSEEN_SECONDS:
            for end in ends:
                if end.what not in told:
                    say(f"  {end.what}")
            told = {end.what for end in ends}
        since = None if ends else since or now
        if since is not None and now - since >= SETTLED_SECONDS:
            say(f"The fleet is as the file says after {now - began:.1f} s.")
            return
        stuck = bool(ends) and all(end.hopeless for end in ends)
        if stuck or now - began > within:
            why = "it cannot get there" if stuck else f"not so after {within:g} s"
            raise ModelserverError(
                f"version {applied.version} is in force, but {why}: "
                f"{'; '.join(end.what for end in ends)}; see `modelserver status`"
            )
        time.sleep(LOOK_SECONDS)


def _open_ends(
    store: Store, applied: Applied, models: frozenset[str]
) -> tuple[OpenEnd, ...] | None:
    """What is still to happen; None where no launcher could do it."""
    with store.reachable():
        hosts = read_hosts(store)
        steered_at, _ = read_steered(store)
        if not hosts:
            return None
        scene = FleetView(
            hosts, read_engines(store), read_wishes(store), read_waiting(store)
        )
    if steered_at <= applied.at:
        return UNSEEN
    return open_ends(applied.spec(), applied.version, models, scene)
