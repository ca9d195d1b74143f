"""What operators order: to relaunch, drain, pause or move something."""

import dataclasses
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from modelserver.errors import ModelserverError
from modelserver.operations.status import EngineStatus, Status
from modelserver.policy.orders import DRAIN, DRAIN_HOST, MOVE, PAUSE
from modelserver.store import Store
from modelserver.store.fleet.control import (
    CONTROL_LOCK_SECONDS,
    hold_control,
    read_wishes,
    write_wishes,
)
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.orders import give, take_back
from modelserver.values import Cause, EngineReport, EngineSpec, Order

#: Seconds for which a relaunch waits until control's look has ended.
LOOK_SECONDS = 15.0
#: Seconds between two questions for control's lock.
LOCK_PAUSE_SECONDS = 0.05


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
    owner, until = f"relaunch {uuid.uuid4()}", time.monotonic() + LOOK_SECONDS
    while time.monotonic() < until:
        with hold_control(store, owner, CONTROL_LOCK_SECONDS) as token:
            if token and _wish_relaunch(store, token, found, who):
                return found.incarnation
        time.sleep(LOCK_PAUSE_SECONDS)
    raise ModelserverError(
        f"control is busy, for {LOOK_SECONDS:g} s already; try again in a moment"
    )


def _wish_relaunch(store: Store, token: int, found: EngineReport, who: str) -> bool:
    """Whether it is wished now; a newer controller may have come."""
    wish = read_wishes(store).get(found.id)
    if wish is None:
        raise ModelserverError(_unwanted(found.id))
    wish = dataclasses.replace(
        wish,
        relaunch=found.incarnation,
        reason=f"asked for by {who}",
        cause=Cause.ASKED,
        token=token,
    )
    return write_wishes(store, token, {found.id: wish})


def drain(store: Store, found: Status, engine: str, who: str, reason: str) -> Drained:
    """Order that an engine gets nothing new; ModelserverError if it is not wanted."""
    status = _wanted_engine(found, engine)
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


def _wanted_engine(found: Status, engine: str) -> EngineStatus:
    status = {each.id: each for each in found.engines}.get(engine)
    if status is None:
        names = ", ".join(each.id for each in found.engines) or "none"
        raise ModelserverError(f"there is no engine {engine}; there are: {names}")
    if not status.wanted:
        raise ModelserverError(_unwanted(engine))
    return status


def drain_host(
    store: Store, found: Status, host: str, who: str, reason: str
) -> tuple[EngineStatus, ...]:
    """Order that a host's engines go elsewhere; returns those that it has now.

    Raises ModelserverError where no such host has reported.
    """
    _require_host(found, host)
    with store.reachable():
        give(store, Order(DRAIN_HOST, host, who, found.at, reason=reason))
    return tuple(each for each in found.engines if host in each.hosts and each.wanted)


def find_kept(found: Status, host: str) -> frozenset[str]:
    """The engines that operators have moved to a host, and that stay there."""
    kept = (each for each in found.orders if each.kind == MOVE and each.host == host)
    return frozenset(each.target for each in kept)


def move(
    store: Store,
    found: Status,
    engine: str,
    host: str,
    who: str,
    pins: Iterable[EngineSpec] = (),
) -> EngineStatus:
    """Order that an engine is on a host until that is withdrawn; returns how it is.

    Raises ModelserverError where there is no such engine or host, or where one of the
    fleet's ``pins`` says otherwise.
    """
    status = _wanted_engine(found, engine)
    _require_host(found, host)
    for pin in pins:
        if pin.id == engine and pin.host:
            raise ModelserverError(
                f"the fleet file pins {engine} to host {pin.host}; change it there, "
                "and run: modelserver apply"
            )
    with store.reachable():
        give(store, Order(MOVE, engine, who, found.at, host=host))
    return status


def _require_host(found: Status, host: str) -> None:
    names = [*(each.name for each in found.hosts), *found.lost_hosts]
    if host not in names:
        known = ", ".join(names) or "none"
        raise ModelserverError(f"there is no host {host}; there are: {known}")


def withdraw(store: Store, kind: str, target: str) -> None:
    """Take back an order; ModelserverError where it was never given."""
    with store.reachable():
        if not take_back(store, kind, target):
            raise ModelserverError(f"there is no {kind} of {target}; nothing changed")


def _unwanted(engine: str) -> str:
    return f"{engine} is wanted no longer"
