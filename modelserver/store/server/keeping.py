"""How the server keeps its data: whether it saves them, drops them, guards them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from modelserver.store.server.state import Store


@dataclass(frozen=True, slots=True)
class ServerKeeping:
    """How a server keeps its data. What its user may not ask is as in a sound one."""

    #: Why its data are not saved though they are to be, "" where they are.
    failure: str = ""
    #: Whether it saves its data at all.
    saves: bool = True
    #: What it drops when its memory is full.
    eviction: str = "noeviction"
    #: Whether anybody who reaches it may use it.
    is_open: bool = False


def read_failure(store: Store) -> str:
    """Why the server cannot save its data, "" where it can or is not to."""
    return _failure(_info(store, "persistence"))


def read_keeping(store: Store) -> ServerKeeping:
    """All of it."""
    persistence, memory = _info(store, "persistence"), _info(store, "memory")
    saving = persistence.get("aof_enabled") == 1 or bool(_config(store, "save"))
    return ServerKeeping(
        _failure(persistence),
        saving or not persistence,
        str(memory.get("maxmemory_policy", "noeviction")),
        _is_open(store),
    )


def _failure(info: Mapping[str, object]) -> str:
    if info.get("rdb_last_bgsave_status") == "err":
        return "its last save to disk failed"
    if info.get("aof_enabled") == 1 and "err" in (
        info.get("aof_last_write_status"),
        info.get("aof_last_bgrewrite_status"),
    ):
        return "its last write to its append-only file failed"
    return ""


def _info(store: Store, section: str) -> Mapping[str, object]:
    try:
        found: Mapping[str, object] = store.run("INFO", section)
    except redis.ResponseError:  # A user without that right, or a hosted server.
        return {}
    return found


def _config(store: Store, name: str) -> str:
    client: Any = store.client
    try:
        return str(client.config_get(name).get(name, ""))
    except redis.ResponseError:
        return "unknown"


def _is_open(store: Store) -> bool:
    """Whether the default user has no password; unknown counts as not."""
    client: Any = store.client
    try:
        flags = client.acl_getuser("default")["flags"]
    except (redis.ResponseError, KeyError):
        return False
    return "on" in flags and "nopass" in flags
