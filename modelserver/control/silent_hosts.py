"""Which hosts are silent, and for how long their engines keep their places."""

import dataclasses
import json
from collections.abc import Sequence

from modelserver.control.alerts import end_alert, raise_alert
from modelserver.decoding import decode
from modelserver.inventory import Host
from modelserver.policy.placement import silent_hosts
from modelserver.policy.placement.silent_hosts import (
    WORKER_GRACE_SECONDS,
    HostSilences,
    follow,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.settings import Settings
from modelserver.store.fleet.alerts import open_alerts
from modelserver.store.fleet.hosts import (
    has_lost_data,
    read_host_names,
    read_silences,
    write_silences,
)
from modelserver.store.server.state import Store
from modelserver.store.server.versions import recall

#: The kind of alert that stands as long as a host has no worker.
WORKER_ALERT = "worker"


def follow_silences(
    store: Store,
    settings: Settings,
    hosts: Sequence[Host],
    looked_at: float,
    now: float,
) -> HostSilences:
    """Note which hosts are silent now. Call it under control's lock.

    ``hosts`` are those that live: the same that are placed on at this look, or a host
    whose lease ends in between would be neither there nor silent. Hosts that the fleet
    leaves out are none of it.
    """
    before = recall(
        store, "memory of silent hosts", read_silences(store), _read, HostSilences()
    )
    known, live = read_host_names(store), {each.name for each in hosts}
    if allowed := {host.name for host in settings.fleet.hosts}:
        known &= allowed
    after = follow(before, known, live, looked_at, now)
    if after != before:
        write_silences(store, json.dumps(dataclasses.asdict(after)))
    return after


def _read(text: str) -> HostSilences:
    return decode(HostSilences, json.loads(text))


def follow_workers(
    store: Store,
    settings: Settings,
    snapshot: Snapshot,
    silences: HostSilences,
    now: float,
) -> None:
    """Tell people of hosts whose engines get no requests for want of a worker."""
    after = silent_hosts.follow_workers(silences, snapshot, now)
    if after != silences:
        write_silences(store, json.dumps(dataclasses.asdict(after)))
    for host, since in after.without_worker.items():
        if now - since >= WORKER_GRACE_SECONDS:
            text = (
                f"host {host} has engines that serve and no worker, so that they get "
                "no requests; start it there: modelserver worker"
            )
            raise_alert(store, settings, host, text, now, WORKER_ALERT)
    for alert in open_alerts(store):
        host = alert.about
        if alert.kind == WORKER_ALERT and host not in after.without_worker:
            text = f"host {host} has a worker again, or no engine that serves"
            end_alert(store, settings, host, text, now, WORKER_ALERT)


def awaits_hosts(store: Store, silences: HostSilences, now: float) -> bool:
    """Whether hosts still have the time to report, so that nothing is decided."""
    return has_lost_data(store) or silences.awaits_hosts(now)
