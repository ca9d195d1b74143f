"""Hosts, as their launchers report them."""

import dataclasses
import json
from uuid import uuid4

from modelserver.decoding import decode
from modelserver.inventory import Host
from modelserver.store.state import Store


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


def read_hosts(store: Store) -> tuple[Host, ...]:
    """The hosts whose lease lives, by name."""
    names = sorted(str(name) for name in store.run("SMEMBERS", store.keys.hosts))
    if not names:
        return ()
    values = store.run("MGET", *[store.keys.host(name) for name in names])
    return tuple(decode_host(value) for value in values if value)


def decode_host(value: str | bytes) -> Host:
    """A host's report from its JSON; ignores what a newer launcher adds."""
    return decode(Host, json.loads(value))
