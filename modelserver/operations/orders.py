"""What operators order: to relaunch, drain or pause something."""

import dataclasses
from dataclasses import dataclass

from modelserver.control.steer import CONTROL_LOCK_SECONDS
from modelserver.errors import ModelserverError
from modelserver.operations.status import EngineStatus, Status
from modelserver.policy.orders import DRAIN, PAUSE
from modelserver.store import Store
from modelserver.store.control import hold_control, read_wishes, write_wishes
from modelserver.store.engines import read_engines
from modelserver.store.orders import give, take_back
from modelserver.values import Cause, Order

#: How often a relaunch asks for control's lock before it gives up.
LOCK_TRIES = 50


@dataclass(frozen=True, slots=True)
class Drained:
    """An engine that is drained from now on."""

    #: How the engine was when the order was given.
    engine: EngineStatus
    #: Other engines that serve its model.
    others: tuple[str, ...]


def relaunch(store: Store, engine: str, who: str) -> int:
    """Wish that an engine is ended and started again; returns the incarnation to end.

    Raises ModelserverError where there is no such engine, or control stays busy.
    """
    engines = read_engines(store)
    found = engines.get(engine)
    if found is None:
        names = ", ".join(engines) or "none"
        raise ModelserverError(f"there is no engine {engine}; there are: {names}")
    for _ in range(LOCK_TRIES):
        with hold_control(store, "relaunch", CONTROL_LOCK_SECONDS) as token:
            if not token:
                continue
            wish = read_wishes(store).get(engine)
            if wish is None:
                raise ModelserverError(_unwanted(engine))
            wish = dataclasses.replace(
                wish,
                relaunch=found.incarnation,
                reason=f"asked for by {who}",
                cause=Cause.ASKED,
                token=token,
            )
            write_wishes(store, token, {engine: wish})
            return found.incarnation
    raise ModelserverError("control is busy; try again in a moment")


def drain(store: Store, found: Status, engine: str, who: str, reason: str) -> Drained:
    """Order that an engine gets nothing new; ModelserverError if it is not wanted."""
    status = {each.id: each for each in found.engines}.get(engine)
    if status is None:
        names = ", ".join(each.id for each in found.engines) or "none"
        raise ModelserverError(f"there is no engine {engine}; there are: {names}")
    if not status.wanted:
        raise ModelserverError(_unwanted(engine))
    with store.reachable():
        give(store, Order(DRAIN, engine, who, found.at, reason=reason))
    others = (
        each.id
        for each in found.engines
        if each.model == status.model
        and each.id != engine
        and each.state.serves
        and each.host_live
    )
    return Drained(status, tuple(others))


def pause(
    store: Store,
    found: Status,
    target: str,
    who: str,
    *,
    seconds: float = 0.0,
    reason: str = "",
) -> float:
    """Order that control leaves a model or an engine alone; for ever with 0 seconds.

    Returns when that ends, in seconds since the epoch, 0 for never. Raises
    ModelserverError where the fleet has no such model or engine.
    """
    names = [*(m.name for m in found.models), *(e.id for e in found.engines)]
    if target not in names:
        raise ModelserverError(
            f"there is no model or engine {target}; there are: {', '.join(names)}"
        )
    until = found.at + seconds if seconds else 0.0
    with store.reachable():
        give(store, Order(PAUSE, target, who, found.at, until, reason))
    return until


def withdraw(store: Store, kind: str, target: str) -> None:
    """Take back an order; ModelserverError where it was never given."""
    with store.reachable():
        if not take_back(store, kind, target):
            raise ModelserverError(f"there is no {kind} of {target}; nothing changed")


def _unwanted(engine: str) -> str:
    return f"{engine} is wanted no longer"
