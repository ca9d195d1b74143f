"""Which hosts are silent, and for how long their engines keep their places."""

import dataclasses
import json
from collections.abc import Sequence

from modelserver.decoding import decode
from modelserver.inventory import Host
from modelserver.policy.placement.silent_hosts import HostSilences, follow
from modelserver.settings import Settings
from modelserver.store.fleet.hosts import (
    has_lost_data,
    read_host_names,
    read_silences,
    write_silences,
)
from modelserver.store.server.state import Store
from modelserver.store.server.versions import recall


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


def awaits_hosts(store: Store, silences: HostSilences, now: float) -> bool:
    """Whether hosts still have the time to report, so that nothing is decided."""
    return has_lost_data(store) or silences.awaits_hosts(now)
