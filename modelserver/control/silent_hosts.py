"""Which hosts are silent, and for how long their engines keep their places."""

import dataclasses
import json

from modelserver.decoding import decode
from modelserver.policy.placement.silent_hosts import HostSilences, follow
from modelserver.settings import Settings
from modelserver.store.hosts import (
    has_lost_data,
    read_host_names,
    read_hosts,
    read_silences,
    write_silences,
)
from modelserver.store.state import Store


def follow_silences(
    store: Store, settings: Settings, looked_at: float, now: float
) -> HostSilences:
    """Note which hosts are silent now. Call it under control's lock.

    Hosts that the fleet leaves out are none of it.
    """
    text = read_silences(store)
    before = decode(HostSilences, json.loads(text)) if text else HostSilences()
    known, live = read_host_names(store), {each.name for each in read_hosts(store)}
    if allowed := {host.name for host in settings.fleet.hosts}:
        known &= allowed
    after = follow(before, known, live, looked_at, now)
    if after != before:
        write_silences(store, json.dumps(dataclasses.asdict(after)))
    return after


def awaits_hosts(store: Store, silences: HostSilences, now: float) -> bool:
    """Whether hosts still have the time to report, so that nothing is decided."""
    return has_lost_data(store) or silences.awaits_hosts(now)
