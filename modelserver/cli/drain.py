"""``drain``, ``undrain``, ``pause`` and ``resume``: what operators order."""

import re

import click

from modelserver.errors import RequestError
from modelserver.operations import orders
from modelserver.operations.status import Status, read_status
from modelserver.operations.words import clock
from modelserver.policy.orders import DRAIN, PAUSE
from modelserver.settings import load
from modelserver.store import Store, connect
from modelserver.user import find_user

#: Seconds by the letter of a duration.
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.command()
@click.argument("engine")
@click.option("--reason", default="", help="Why, for those who run status or why.")
def drain(engine: str, reason: str) -> None:
    """Send ENGINE nothing new until ``undrain``; what it has it finishes.

    It runs on, is not judged and not restarted for what changed in the fleet.
    """
    store, found = _open()
    drained = orders.drain(store, found, engine, find_user(), reason)
    click.echo(
        f"{engine} gets nothing new and finishes the {drained.engine.inflight} that it "
        f"has; `modelserver undrain {engine}` ends that"
    )
    if not drained.others:
        click.echo(f"No other engine serves {drained.engine.model}: its requests wait")


@click.command()
@click.argument("engine")
def undrain(engine: str) -> None:
    """Let ENGINE serve again."""
    orders.withdraw(connect(load()), DRAIN, engine)
    click.echo(f"{engine} serves again")


@click.command()
@click.argument("target", metavar="[MODEL|ENGINE]", required=False)
@click.option("--for", "duration", default="", help="How long, for example 30m or 2h.")
@click.option("--reason", default="", help="Why, for those who run status or why.")
def pause(target: str | None, duration: str, reason: str) -> None:
    """Have control take no action on MODEL or ENGINE until ``resume``.

    Nothing is placed, moved, judged or relaunched; requests go on, and launchers still
    start engines that die. Without a name, list what was ordered.
    """
    store, found = _open()
    if target is None:
        _list(found)
        return
    seconds = _seconds(duration) if duration else 0.0
    who = find_user()
    until = orders.pause(store, found, target, who, seconds=seconds, reason=reason)
    ends = f"until {clock(until)}" if until else "until then"
    click.echo(
        f"Control keeps its hands off {target} {ends}; "
        f"`modelserver resume {target}` ends that"
    )


@click.command()
@click.argument("target", metavar="MODEL|ENGINE")
def resume(target: str) -> None:
    """Let control take care of MODEL or ENGINE again."""
    orders.withdraw(connect(load()), PAUSE, target)
    click.echo(f"{target} is under control again")


def _open() -> tuple[Store, Status]:
    settings = load()
    store = connect(settings)
    return store, read_status(store, settings)


def _list(found: Status) -> None:
    for each in found.orders:
        until = f" until {clock(each.until)}" * bool(each.until)
        reason = f": {each.reason}" * bool(each.reason)
        click.echo(
            f"{each.kind} {each.target}, by {each.who} at {clock(each.at)}"
            f"{until}{reason}"
        )
    if not found.orders:
        click.echo("Nothing is drained or paused.")


def _seconds(duration: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", duration.strip())
    if not found or not float(found[1]):
        raise RequestError(
            f'"{duration}" is no duration; say 90s, 30m, 2h or 1d, for example'
        )
    return float(found[1]) * DURATION_UNITS[found[2] or "s"]
