"""``drain-host``, ``undrain-host`` and ``move``: the maintenance of hosts."""

import click

from modelserver.control.applied_fleet import in_force
from modelserver.errors import ModelserverError
from modelserver.operations import orders
from modelserver.operations.status import read_status
from modelserver.policy.orders import DRAIN_HOST, MOVE
from modelserver.settings import load
from modelserver.store import connect
from modelserver.user import find_user


@click.command("drain-host")
@click.argument("host")
@click.option("--reason", default="", help="Why, for those who run status or why.")
def drain_host(host: str, reason: str) -> None:
    """Move the engines of HOST elsewhere, until ``undrain-host``.

    A quarter of a model's engines move at a time, and each finishes what it has. Those
    that fit on no other host stay and get nothing new.
    """
    settings = load()
    store = connect(settings)
    found = read_status(store, settings)
    engines = orders.drain_host(store, found, host, find_user(), reason)
    kept = orders.find_kept(found, host)
    names = ", ".join(each.id for each in engines if each.id not in kept) or "none"
    click.echo(
        f"{host} gets no engines, and those that it has go elsewhere: {names}; "
        f"`modelserver why {host}` shows what is left, `modelserver undrain-host "
        f"{host}` ends that"
    )
    for each in engines:
        if each.id in kept:
            click.echo(
                f"{each.id} was moved to {host} and stays there, with nothing new; "
                f"`modelserver move {each.id} --anywhere` lets it go"
            )


@click.command("undrain-host")
@click.argument("host")
def undrain_host(host: str) -> None:
    """Let HOST have engines again."""
    orders.withdraw(connect(load()), DRAIN_HOST, host)
    click.echo(f"{host} gets engines again; some come back by and by")


@click.command()
@click.argument("engine")
@click.argument("host", required=False)
@click.option("--anywhere", is_flag=True, help="Let control choose its host again.")
def move(engine: str, host: str | None, anywhere: bool) -> None:
    """Move ENGINE to HOST, where it stays until --anywhere.

    It finishes what it has, and starts there once there is room.
    """
    settings = load()
    store = connect(settings)
    if anywhere == bool(host):
        raise ModelserverError("say either a HOST or --anywhere")
    if host is None:
        orders.withdraw(store, MOVE, engine)
        click.echo(f"Control chooses the host of {engine} again")
        return
    found = read_status(store, settings)
    pins = in_force(store, settings).fleet.pins()
    before = orders.move(store, found, engine, host, find_user(), pins)
    click.echo(
        f"{engine} moves from {before.host} to {host} and stays there; "
        f"`modelserver move {engine} --anywhere` ends that"
    )
