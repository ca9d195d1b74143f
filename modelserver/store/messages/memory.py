"""The server's memory: a note stands in Redis while it is short.

Requests are refused from a mark below the server's limit on. Answers, leases and the
fleet's state are taken all the same, and have room.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from modelserver.store.scripts.state import ANY_COMMAND, WATCH_MEMORY
from modelserver.store.server.state import Store

if TYPE_CHECKING:
    from modelserver.store.messages.delivery import Deliveries

#: Memory is short above this share of the server's limit.
SHORT_SHARE = 0.9
#: How long the note stands once nobody looks any more, in seconds.
NOTE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Memory:
    """A server's memory in bytes; its limit is 0 where it has none."""

    used: int
    limit: int

    @property
    def short(self) -> bool:
        """Whether new requests are refused."""
        return bool(self.limit) and self.used >= SHORT_SHARE * self.limit

    @property
    def text(self) -> str:
        """What is used of the limit."""
        used, limit = round(self.used / 2**20), round(self.limit / 2**20)
        return f"{used} of {limit} MiB are used" if limit else f"{used} MiB are used"


def read_memory(store: Store) -> Memory:
    """The memory of the server now."""
    info: Any = store.client.info("memory")
    return Memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))


def read_note(store: Store) -> str:
    """How short memory is by the note that producers heed, "" where it is not."""
    return str(store.client.get(store.keys.memory_short) or "")


async def watch_memory(own: "Deliveries") -> str:
    """Keep the note up to date; returns it, "" while memory is not short."""
    keys = (own.keys.memory_short, own.keys.memory_seen)
    note = await _note(own.client, keys)
    if own.results is None:
        return note
    # The producers read the note of the server that they send to.
    apart = await _note(own.results, keys)
    if apart and not note:
        note = f"on the server of results {apart}"
        command = ("SET", keys[0], note, "EX", str(NOTE_SECONDS))
        await own.client.eval(ANY_COMMAND, 0, *command)
    return note


async def _note(client: Redis, keys: tuple[str, str]) -> str:
    share, seconds = str(SHORT_SHARE), str(NOTE_SECONDS)
    reply: Any = client.eval(WATCH_MEMORY, 2, *keys, share, seconds)
    note: bytes = await reply
    return note.decode()
