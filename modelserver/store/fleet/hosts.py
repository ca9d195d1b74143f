"""Hosts, as their launchers report them."""

import dataclasses
import json
from uuid import uuid4

from modelserver.decoding import decode
from modelserver.inventory import Host
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each


def report_host(store: Store, host: Host, lease_seconds: float) -> None:
    """Renew a host's lease together with what it has."""
    with store.client.pipeline() as pipe:
        pipe.sadd(store.keys.hosts, host.name)
        pipe.set(
            store.keys.host(host.name),
            json.dumps(dataclasses.asdict(host)),
            px=int(lease_seconds * 1000),
        )
        pipe.execute()


def name_data(store: Store) -> str:
    """The random name of the store's data; gives a store without one a name."""
    store.client.set(store.keys.data, uuid4().hex, nx=True)
    return str(store.client.get(store.keys.data) or "")


def note_data_loss(store: Store, seconds: float) -> None:
    """Say that the store has lost its data: control waits so long for reports.

    Only the first launcher that finds it counts, or others would lengthen the time.
    """
    store.client.set(store.keys.data_lost, "1", px=int(seconds * 1000), nx=True)


def has_lost_data(store: Store) -> bool:
    """Whether the store has lost its data a moment ago."""
    return bool(store.client.exists(store.keys.data_lost))


def read_silences(store: Store) -> str:
    """What control remembers of silent hosts, as JSON, "" for nothing."""
    return str(store.client.get(store.keys.silences) or "")


def write_silences(store: Store, silences: str) -> None:
    """Remember the silent hosts until the next look."""
    store.client.set(store.keys.silences, silences)


def end_host_lease(store: Store, host: str) -> None:
    """End a host's lease at once."""
    with store.client.pipeline() as pipe:
        pipe.srem(store.keys.hosts, host)
        pipe.delete(store.keys.host(host))
        pipe.execute()


def read_host(store: Store, name: str) -> Host | None:
    """A live host by name."""
    value = store.client.get(store.keys.host(name))
    return decode_host(str(value)) if value else None


def read_host_names(store: Store) -> set[str]:
    """The hosts that have reported and have not said that they end."""
    return {str(name) for name in store.run("SMEMBERS", store.keys.hosts)}


def read_hosts(store: Store) -> tuple[Host, ...]:
    """The hosts whose lease lives, by name."""
    names = sorted(read_host_names(store))
    if not names:
        return ()
    values = store.run("MGET", *[store.keys.host(name) for name in names])
    found = {name: value for name, value in zip(names, values, strict=True) if value}
    return tuple(read_each(store, "report of host", found, decode_host).values())


def decode_host(value: str | bytes) -> Host:
    """A host's report from its JSON; ignores what a newer launcher adds."""
    return decode(Host, json.loads(value))
