"""Looks at the whole fleet once, decides, and writes the wishes that follow.

Beat has ``steer`` called every few seconds, on whichever worker comes first. Control
keeps nothing from one call to the next: all that it knows is in the store.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelserver.control.alerts import end_alert, raise_alert
from modelserver.control.applied_fleet import in_force, read_unchecked
from modelserver.control.availability import update_availability
from modelserver.control.hooks import call_again
from modelserver.control.silent_hosts import awaits_hosts, follow_silences
from modelserver.control.troubles import tell_troubles
from modelserver.errors import ConfigurationError, FleetRefusedError
from modelserver.inventory import Host
from modelserver.policy.actions import Action, Alert
from modelserver.policy.decide import Decision, apply, consider
from modelserver.policy.decision_log import account, noteworthy
from modelserver.policy.health import memory
from modelserver.policy.health.limits import with_capacities
from modelserver.policy.placement.silent_hosts import find_away, find_returned
from modelserver.policy.rebalance import state
from modelserver.policy.replay import look_to_json
from modelserver.policy.snapshot import Snapshot
from modelserver.settings import Settings
from modelserver.store.fleet.control import (
    CONTROL_LOCK_SECONDS,
    HEALTH_MEMORY,
    MOVES_MEMORY,
    hold_control,
    read_memory,
    read_steered,
    read_wishes,
    report_steered,
    report_waiting,
    write_wishes,
)
from modelserver.store.fleet.decisions import keep_look, log_decision
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_hosts
from modelserver.store.fleet.measurements import (
    count_finished,
    read_all_samples,
    read_canaries,
    read_metrics,
)
from modelserver.store.fleet.orders import orders
from modelserver.store.fleet.workers import read_backlogs, read_loads, read_worker_hosts
from modelserver.store.messages.expired import drop_expired
from modelserver.store.server.state import Store
from modelserver.store.server.versions import note_unreadable

log = logging.getLogger(__name__)


def steer(store: Store, settings: Settings, owner: str) -> list[Action]:
    """Decide once and write the wishes; returns the actions that took effect.

    Does nothing while another owner is at work. ``owner`` must differ between all
    controllers that may run at once.
    """
    with hold_control(store, owner, CONTROL_LOCK_SECONDS) as token:
        if not token:
            return []
        obeyed = _in_force(store, settings)
        if obeyed is None:
            return []
        settings = obeyed
        looked_at, _ = read_steered(store)
        report_steered(store, owner)
        now = store.now()
        hosts = read_hosts(store)
        silences = follow_silences(store, settings, hosts, looked_at, now)
        call_again(store, settings, now)
        if awaits_hosts(store, silences, now):
            return []
        snapshot = read_snapshot(store, settings, hosts)
        grace = settings.fleet.rules.host_grace_seconds
        away = find_away(snapshot, silences, grace, now)
        returned = find_returned(snapshot, now)
        snapshot = replace(snapshot, away=away, returned=returned)
        decision = consider(snapshot, settings.fleet.rules, now)
        waiting = decision.waiting
        report_waiting(store, waiting)
        down = update_availability(store, settings, snapshot, waiting, now)
        tell_troubles(store, settings, snapshot, waiting, silences, down, now)
        drop_expired(store, _unserved(store, settings, snapshot))
        wishes = apply(decision.actions, snapshot.wishes, token)
        learnt = _learnt(snapshot, decision)
        if (wishes or learnt) and not write_wishes(store, token, wishes, learnt):
            log.warning("token=%d superseded by a newer controller", token)
            return []
        _record(store, settings, snapshot, decision, now)
        return list(decision.actions)


def _in_force(store: Store, settings: Settings) -> Settings | None:
    """The settings with the fleet in force; as they were where it is refused.

    None where a newer version has applied one that this one cannot read: another worker
    may know how. Where none does, launchers tell that control is silent.
    """
    about, now, kind = "fleet", store.now(), "refused"
    try:
        settings = in_force(store, settings)
    except FleetRefusedError as error:
        text = f"control goes by the fleet that it had: {error}"
        raise_alert(store, settings, about, text, now, kind)
    except ConfigurationError as error:
        note_unreadable(store, "applied fleet", error)
        return None
    else:
        end_alert(store, settings, about, "the fleet is obeyed again", now, kind)
    return settings


def read_snapshot(store: Store, settings: Settings, hosts: Sequence[Host]) -> Snapshot:
    """Everything that decisions depend on, without hosts that the fleet leaves out.

    ``hosts`` are those that live.
    """
    allowed = {host.name for host in settings.fleet.hosts}
    specs, engines = settings.fleet.specs(), read_engines(store)
    remembered = read_memory(store)
    return Snapshot(
        specs=with_capacities(specs, engines.values()),
        pins=settings.fleet.pins(),
        hosts=tuple(host for host in hosts if not allowed or host.name in allowed),
        engines=engines,
        wishes=read_wishes(store),
        loads=read_loads(store),
        worker_hosts=read_worker_hosts(store),
        orders=orders(store),
        samples=read_all_samples(store, list(engines)),
        metrics=read_metrics(store),
        canaries=read_canaries(store),
        memory=_health(remembered) if settings.fleet.rules.judge_engines else None,
        queues=read_backlogs(store, [spec.name for spec in specs]),
        finished=count_finished(store, list(engines)),
        moves=_moves(remembered),
    )


def _health(remembered: Mapping[str, str]) -> memory.HealthMemory:
    try:
        return memory.from_json(remembered.get(HEALTH_MEMORY, ""))
    except (KeyError, TypeError, ValueError):
        # Another version wrote it. To learn anew is better than to decide nothing.
        log.exception(
            "control's memory of the engines' health is unreadable; it learns anew"
        )
        return memory.HealthMemory()


def _moves(remembered: Mapping[str, str]) -> state.RebalanceMemory:
    try:
        return state.from_json(json.loads(remembered.get(MOVES_MEMORY, "{}")))
    except (AttributeError, KeyError, TypeError, ValueError):
        log.exception(
            "control's memory of the models' load is unreadable; it learns anew"
        )
        return state.RebalanceMemory()


def _unserved(store: Store, settings: Settings, snapshot: Snapshot) -> list[str]:
    """The queues that wait and have no engine, those of models that left too."""
    served = {each.model for each in snapshot.engines.values() if each.serves}
    waiting = [name for name, count in snapshot.queues.items() if count]
    applied, _ = read_unchecked(store, settings)
    left = applied.left if applied else ()
    return [name for name in (*waiting, *left) if name not in served]


def _learnt(snapshot: Snapshot, decision: Decision) -> dict[str, str]:
    """The parts of control's memory that have changed, as they are stored."""
    parts = {}
    if snapshot.memory is not None and decision.memory != snapshot.memory:
        parts[HEALTH_MEMORY] = memory.to_json(decision.memory)
    moves = decision.scaling.memory
    if moves is not None and moves != snapshot.moves:
        parts[MOVES_MEMORY] = json.dumps(state.to_json(moves), separators=(",", ":"))
    return parts


def _record(
    store: Store, settings: Settings, snapshot: Snapshot, decision: Decision, now: float
) -> None:
    """Log what was decided and what it was decided from, and alert people."""
    rules = settings.fleet.rules
    actions = noteworthy(decision.actions)
    if actions:
        look = look_to_json(snapshot, rules, now, decision.actions)
        key = keep_look(store, look)
    for action in actions:
        values = account(action, snapshot, decision, rules, now)
        log_decision(store, {**values, "snapshot": key})
        _log(values)
        if isinstance(action, Alert):
            raise_alert(store, settings, action.engine, action.reason, now)
    for reason in decision.scaling.reasons:
        values = {"engine": "", "action": "rebalance", "at": f"{now:.3f}"}
        values |= {"model": reason.model, "reason": reason.sentence, **reason.shown}
        log_decision(store, values)
        _log(values)


def _log(values: Mapping[str, str]) -> None:
    aside = ("engine", "action")
    parts = [f'{k}="{v}"' for k, v in values.items() if v and k not in aside]
    about = f"engine={values['engine']}" if values["engine"] else "models"
    log.info("%s %s %s", about, values["action"], " ".join(parts))
