"""``drain``, ``undrain``, ``pause`` and ``resume``: what operators order."""

import getpass
import re

import click

from modelserver.cli.decision_text import clock
from modelserver.errors import ModelserverError, RequestError
from modelserver.operations.status import Status, read_status
from modelserver.policy.orders import DRAIN, PAUSE, in_force
from modelserver.settings import load
from modelserver.store import Store, connect
from modelserver.store.orders import give, orders, take_back
from modelserver.values import Order

#: Seconds by the letter of a duration.
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.command()
@click.argument("engine")
@click.option("--reason", default="", help="Why; status and why show it.")
def drain(engine: str, reason: str) -> None:
    """Send ENGINE nothing new until ``undrain``; what it has it finishes.

    It runs on, is not judged and not restarted for what changed in the fleet.
    """
    store, found = _open()
    status = {each.id: each for each in found.engines}.get(engine)
    if status is None:
        names = ", ".join(each.id for each in found.engines) or "none"
        raise ModelserverError(f"there is no engine {engine}; there are: {names}")
    if not status.wanted:
        raise ModelserverError(f"{engine} is wanted no longer")
    with store.reachable():
        give(store, _order(DRAIN, engine, found.at, reason=reason))
    others = [
        each.id
        for each in found.engines
        if each.model == status.model
        and each.id != engine
        and each.state.serves
        and each.host_live
    ]
    click.echo(
        f"{engine} gets nothing new and finishes the {status.inflight} that it has; "
        f"`modelserver undrain {engine}` ends that"
    )
    if not others:
        click.echo(f"No other engine serves {status.model}: its requests wait")


@click.command()
@click.argument("engine")
def undrain(engine: str) -> None:
    """Let ENGINE serve again."""
    _take_back(DRAIN, engine, "serves again")


@click.command()
@click.argument("target", metavar="[MODEL|ENGINE]", required=False)
@click.option("--for", "duration", default="", help="For so long, like 30m or 2h.")
@click.option("--reason", default="", help="Why; status and why show it.")
def pause(target: str | None, duration: str, reason: str) -> None:
    """Have control take no action on MODEL or ENGINE until ``resume``.

    Nothing is placed, moved, judged or relaunched; requests go on, and launchers still
    start engines that die. Without a name, list what was ordered.
    """
    store, found = _open()
    if target is None:
        _list(store, found.at)
        return
    names = [*(m.name for m in found.models), *(e.id for e in found.engines)]
    if target not in names:
        raise ModelserverError(
            f"there is no model or engine {target}; there are: {', '.join(names)}"
        )
    until = found.at + _seconds(duration) if duration else 0.0
    with store.reachable():
        give(store, _order(PAUSE, target, found.at, until, reason))
    ends = f"until {clock(until)}" if until else "until then"
    click.echo(
        f"Control keeps its hands off {target} {ends}; "
        f"`modelserver resume {target}` ends that"
    )


@click.command()
@click.argument("target", metavar="MODEL|ENGINE")
def resume(target: str) -> None:
    """Let control take care of MODEL or ENGINE again."""
    _take_back(PAUSE, target, "is under control again")


def _open() -> tuple[Store, Status]:
    settings = load()
    store = connect(settings)
    return store, read_status(store, settings)


def _order(
    kind: str, target: str, at: float, until: float = 0.0, reason: str = ""
) -> Order:
    return Order(kind, target, getpass.getuser(), at, until, reason)


def _take_back(kind: str, target: str, then: str) -> None:
    store = connect(load())
    with store.reachable():
        if not take_back(store, kind, target):
            raise ModelserverError(f"there is no {kind} of {target}; nothing changed")
    click.echo(f"{target} {then}")


def _list(store: Store, now: float) -> None:
    with store.reachable():
        given = in_force(orders(store), now)
    for each in given:
        until = f" until {clock(each.until)}" * bool(each.until)
        reason = f": {each.reason}" * bool(each.reason)
        click.echo(
            f"{each.kind} {each.target}, by {each.who} at {clock(each.at)}"
            f"{until}{reason}"
        )
    if not given:
        click.echo("Nothing is drained or paused.")


def _seconds(duration: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", duration.strip())
    if not found or not float(found[1]):
        raise RequestError(
            f'"{duration}" is no duration; say 90s, 30m, 2h or 1d, for example'
        )
    return float(found[1]) * UNITS[found[2] or "s"]
