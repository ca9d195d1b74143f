"""Finds what is wrong with the fleet at each look, and tells people of it."""

import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Mapping

from modelserver.control.alerts import end_alert, raise_alert
from modelserver.decoding import decode
from modelserver.operations.hosted_runs import START_BATCHES, read_runs_status
from modelserver.policy.orders import with_orders
from modelserver.policy.placement.silent_hosts import HostSilences
from modelserver.policy.snapshot import Snapshot
from modelserver.policy.troubles import (
    NotedTrouble,
    Trouble,
    TroubleKind,
    find_troubles,
    follow_troubles,
    over,
)
from modelserver.settings import Settings
from modelserver.store.fleet.alerts import open_alerts, read_troubles, write_troubles
from modelserver.store.fleet.engines import remove_engine
from modelserver.store.fleet.hosts import end_host_lease
from modelserver.store.messages.dead_letters import count_dead
from modelserver.store.messages.memory import read_note
from modelserver.store.server.keeping import read_failure
from modelserver.store.server.state import Store
from modelserver.store.server.versions import recall

log = logging.getLogger(__name__)

#: A host that has been lost for this long is forgotten, in seconds: a week.
FORGET_HOST_SECONDS = 7 * 86_400.0
#: Troubles are told by alerts of these kinds.
KINDS = frozenset(TroubleKind)


def tell_troubles(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    waiting: Mapping[str, str],
    silences: HostSilences,
    down: Iterable[Trouble],
    now: float,
) -> None:
    """Find all else that is wrong than models that are ``down``, and tell it.

    ``waiting`` is as in a ``Decision``.
    """
    before = {key: note for key, note in _read_noted(store).items() if not note.away}
    # A host that is drained may be taken down.
    drained = with_orders(snapshot, now).drained_hosts
    silent = [host for host in silences.since if host not in drained]
    found = find_troubles(snapshot, waiting, silent, before)
    tell(store, settings, (*down, *found, *find_server_troubles(store)), now)
    _forget_lost(store, snapshot, before, now)


def _forget_lost(
    store: Store, snapshot: Snapshot, noted: Mapping[str, NotedTrouble], now: float
) -> None:
    """Collect what hosts have left that were lost long ago."""
    for trouble, note in noted.items():
        kind, _, host = trouble.partition(":")
        if kind != TroubleKind.HOST or now - note.since < FORGET_HOST_SECONDS:
            continue
        for name, report in snapshot.engines.items():
            wish = snapshot.wishes.get(name)
            if report.host == host and (wish is None or wish.spec.host != host):
                remove_engine(store, name)
        end_host_lease(store, host)
        log.warning("host=%s is forgotten: it did not return", host)


def find_server_troubles(store: Store) -> Iterator[Trouble]:
    """What is wrong with Redis, and with what lies in it."""
    if short := read_note(store):
        text = f"the memory of Redis is short ({short}): new requests are refused"
        yield Trouble(TroubleKind.MEMORY, "redis", text)
    if failure := read_failure(store):
        text = f"Redis at {store.url} does not keep its data: {failure}; see its log"
        yield Trouble(TroubleKind.PERSISTENCE, "redis", text)
    if dead := count_dead(store):
        are = "requests are" if dead > 1 else "request is"
        text = f"{dead} {are} set aside; see `modelserver dead`"
        yield Trouble(TroubleKind.DEAD, "requests", text, dead)
    runs = read_runs_status(store)
    if runs.is_stuck:
        text = (
            f"{runs.told_waiting}, and no process `modelserver batches` runs; "
            f"{START_BATCHES}"
        )
        yield Trouble(TroubleKind.BATCHES, "runs", text)


def tell(
    store: Store, settings: Settings, troubles: Iterable[Trouble], now: float
) -> None:
    """Tell people of troubles that are new or have grown, and of those that are over.

    ``troubles`` are all that there are.
    """
    before = _read_noted(store)
    telling = follow_troubles(before, troubles, now)
    for each in telling.due:
        raise_alert(
            *(store, settings, each.about, each.text, now, each.kind),
            again=each.key in telling.grown,
        )
    for alert in open_alerts(store):
        if (
            alert.kind in KINDS
            and f"{alert.kind}:{alert.about}" not in telling.standing
        ):
            text = over(TroubleKind(alert.kind), alert.about)
            end_alert(store, settings, alert.about, text, now, alert.kind)
    if telling.noted != before:
        notes = {key: dataclasses.asdict(each) for key, each in telling.noted.items()}
        write_troubles(store, json.dumps(notes))


def _read_noted(store: Store) -> dict[str, NotedTrouble]:
    return recall(store, "memory of troubles", read_troubles(store), _read, {})


def _read(text: str) -> dict[str, NotedTrouble]:
    values = json.loads(text)
    return {key: decode(NotedTrouble, value) for key, value in values.items()}
