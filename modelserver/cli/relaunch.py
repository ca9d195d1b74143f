"""``modelserver relaunch``: end an engine and start it again, FATAL ones too."""

import dataclasses
import getpass

import click

from modelserver.errors import ModelserverError
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.control import hold_control, read_wishes, write_wishes
from modelserver.store.engines import read_engines
from modelserver.values import Cause

#: A controller's tick takes a moment; so long is its lock waited for, in tries.
TRIES = 50
LOCK_SECONDS = 10.0


@click.command()
@click.argument("engine")
def relaunch(engine: str) -> None:
    """Drain ENGINE, end it and start it again; a FATAL one is tried again."""
    store = connect(load())
    found = read_engines(store).get(engine)
    if found is None:
        names = ", ".join(read_engines(store)) or "none"
        raise ModelserverError(f"there is no engine {engine}; there are: {names}")
    for _ in range(TRIES):
        with hold_control(store, "relaunch", LOCK_SECONDS) as token:
            wish = read_wishes(store).get(engine) if token else None
            if token and wish is None:
                raise ModelserverError(f"{engine} is wanted no longer")
            if wish is not None:
                wish = dataclasses.replace(
                    wish,
                    relaunch=found.incarnation,
                    reason=f"asked for by {getpass.getuser()}",
                    cause=Cause.ASKED,
                    token=token,
                )
                write_wishes(store, token, {engine: wish})
                break
    else:
        raise ModelserverError("control is busy; try again in a moment")
    click.echo(f"{engine}: incarnation {found.incarnation} goes, the next one comes")
