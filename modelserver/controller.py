"""One look at the whole fleet, and the wishes that follow from it.

Beat calls ``steer`` every few seconds, on whichever worker comes first. Control knows
nothing from one call to the next: all that it goes by stands in the store.
"""

import logging
from collections.abc import Mapping

from modelserver.applied import in_force
from modelserver.model import Action, Relaunch, Snapshot, Want
from modelserver.policy import apply, consider
from modelserver.settings import Settings
from modelserver.store.state import Store

log = logging.getLogger(__name__)

#: A controller that is killed at work blocks the others for no longer than this.
LOCK_SECONDS = 10.0


def steer(store: Store, settings: Settings, owner: str) -> list[Action]:
    """Decide once and write the wishes; returns the actions that took effect.

    Does nothing while another owner is at work. ``owner`` must differ between all
    controllers that may run at once.
    """
    with store.control(owner, LOCK_SECONDS) as token:
        if not token:
            return []
        store.report_steered(owner)
        settings = in_force(store, settings)
        snapshot = read_snapshot(store, settings)
        now = store.now()
        decision = consider(snapshot, settings.fleet.rules, now)
        actions = decision.actions
        store.report_waiting(decision.waiting)
        if not actions:
            return []
        if not store.wish(token, apply(actions, snapshot.desired, token)):
            log.warning("token=%d superseded by a newer controller", token)
            return []
        for action in actions:
            _record(store, action, _values(action, snapshot, settings, now))
        return list(actions)


def read_snapshot(store: Store, settings: Settings) -> Snapshot:
    """Everything that decisions depend on; hosts that the fleet does not list aside."""
    allowed = {host.name for host in settings.fleet.hosts}
    hosts = store.hosts()
    return Snapshot(
        specs=settings.fleet.specs(),
        pins=settings.fleet.pins(),
        hosts=tuple(host for host in hosts if not allowed or host.name in allowed),
        engines=store.engines(),
        desired=store.desired(),
        loads=store.loads(),
    )


def _values(
    action: Action, snapshot: Snapshot, settings: Settings, now: float
) -> dict[str, str]:
    """The values that an action was decided from, as the decision log keeps them."""
    hosts = ",".join(host.name for host in snapshot.hosts)
    match action:
        case Want(spec):
            old = snapshot.desired.get(spec.id)
            values = {
                "model": spec.model,
                "host": spec.host,
                "was_on": old.spec.host if old else "",
                "live_hosts": hosts,
            }
        case Relaunch(engine, incarnation, reason):
            values = {"reason": reason, "incarnation": str(incarnation)}
            values |= _symptoms(engine, snapshot, settings)
        case _:
            values = {"reason": action.reason, "live_hosts": hosts}
    return {"at": f"{now:.3f}", **values}


def _symptoms(engine: str, snapshot: Snapshot, settings: Settings) -> dict[str, str]:
    report = snapshot.engines[engine]
    values = {
        "model": report.model,
        "host": report.host,
        "alive_at": f"{report.alive_at:.3f}",
        "since": f"{report.since:.3f}",
        "hang_seconds": f"{settings.fleet.rules.hang_seconds:g}",
    }
    load = snapshot.loads.get(engine)
    if load:
        values["inflight"] = str(load.inflight)
        values["oldest_seconds"] = f"{load.oldest_seconds:.1f}"
        values["idle_seconds"] = f"{load.idle_seconds:.1f}"
    return values


def _record(store: Store, action: Action, values: Mapping[str, str]) -> None:
    engine = action.spec.id if isinstance(action, Want) else action.engine
    name = type(action).__name__.lower()
    store.log_decision({"engine": engine, "action": name, **values})
    text = " ".join(f'{key}="{value}"' for key, value in values.items() if value)
    log.info("engine=%s %s %s", engine, name, text)
