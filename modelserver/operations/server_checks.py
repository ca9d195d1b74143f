"""What ``doctor`` looks at of Redis: its version, rights, memory and keeping."""

import re
from collections.abc import Iterator

import redis

from modelserver.errors import StoreUnreachableError
from modelserver.operations.check import Check
from modelserver.server_address import read_address
from modelserver.store import Store
from modelserver.store.messages.memory import Memory, read_memory, read_note
from modelserver.store.server.keeping import ServerKeeping, read_keeping
from modelserver.store.server.state import ServerKind, try_rights
from modelserver.store.server.unfit import TESTED

#: The oldest servers that everything is tested with.
OLDEST_SERVERS = {"redis": (7, 2), "valkey": (8, 0)}
#: The names of this host itself.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_server(store: Store) -> Iterator[Check]:
    """All that is looked at of a server that answers.

    Raises StoreUnreachableError where nothing else can be found out there.
    """
    with store.reachable():
        found = store.server()
    kind = check_kind(found, store.url)
    if found.mode in ("cluster", "sentinel"):
        raise StoreUnreachableError(f"{kind.fact}; {kind.remedy}")
    yield kind
    if not kind.is_problem:
        yield from check_rights(store)
    with store.reachable():
        memory, note = read_memory(store), read_note(store)
        keeping = read_keeping(store)
    yield check_memory(memory, note)
    yield from check_keeping(keeping, store.url)


def check_kind(found: ServerKind, url: str, what: str = "redis") -> Check:
    """Whether it is a server of a kind, a version and a role that a fleet can use."""
    fact = f"{found} at {url}"
    if found.mode == "sentinel":
        remedy = "write sentinel://host:port/group/db, with the group that it watches"
        return Check(what, f"{fact} is a sentinel, which keeps no data", remedy)
    if found.mode == "cluster":
        remedy = "use one without cluster-enabled; sentinel:// is there for failovers"
        more = "is a node of a cluster, and a fleet needs all of its keys on one server"
        return Check(what, f"{fact} {more}", remedy)
    if found.role in ("replica", "slave"):
        remedy = "name its primary in the URL, or its sentinels by sentinel://"
        return Check(what, f"{fact} is a replica, which takes no writes", remedy)
    oldest = OLDEST_SERVERS.get(found.name)
    if oldest is None:
        return Check(what, f"{fact} is none that is tested", f"use {TESTED}", True)
    version = tuple(int(part) for part in re.findall(r"\d+", found.version)[:2])
    wanted = ".".join(map(str, oldest))
    remedy = f"use {found.name} {wanted} or newer" if version < oldest else ""
    return Check(what, fact, remedy)


def check_rights(store: Store) -> Iterator[Check]:
    """What a Redis user with few rights may not do, and what the server refuses."""
    try:
        with store.reachable():
            try_rights(store)
    except StoreUnreachableError as error:
        yield trouble("redis rights", error)
    except redis.ResponseError as error:
        remedy = "see its log; where it says MISCONF, its disk is full or not writable"
        yield Check("redis", f"it refuses to write: {error}", remedy)


def trouble(what: str, error: StoreUnreachableError) -> Check:
    """The check of a server that cannot be used."""
    fact, _, remedy = str(error).partition("; ")
    return Check(what, fact, remedy)


def check_memory(memory: Memory, note: str) -> Check:
    """The server's memory; ``note`` is how short it is."""
    if memory.short or note:
        remedy = (
            "new requests are refused until there is more: raise maxmemory, read and "
            "forget results, or lower defaults.result_expires_seconds"
        )
        return Check("redis memory", note or memory.text, remedy)
    if memory.limit:
        return Check("redis memory", memory.text)
    remedy = (
        "set maxmemory below the memory of its machine: then requests are refused "
        "before the kernel ends the server"
    )
    return Check("redis memory", f"{memory.text}, without a limit", remedy, True)


def check_keeping(keeping: ServerKeeping, url: str) -> Iterator[Check]:
    """How the server at a URL keeps its data."""
    if keeping.failure:
        remedy = "see its log: its disk may be full, or its folder not writable"
        yield Check("redis persistence", keeping.failure, remedy)
    elif keeping.saves:
        yield Check("redis persistence", "it saves its data")
    else:
        fact = "it saves nothing: what waits in it is lost with its process"
        remedy = "set appendonly yes in its configuration"
        yield Check("redis persistence", fact, remedy, True)
    fact, remedy = f"maxmemory-policy is {keeping.eviction}", ""
    if keeping.eviction != "noeviction":
        remedy = (
            "set maxmemory-policy noeviction: with others it drops requests and answers"
        )
    yield Check("redis eviction", fact, remedy)
    if keeping.is_open:
        near = read_address(url).host in LOOPBACK
        fact = f"whoever reaches {url} may use it"
        remedy = "set requirepass, or a user of its own, and write it in redis.url"
        yield Check("redis password", fact, remedy, near)
