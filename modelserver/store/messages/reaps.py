"""What dead workers held: given back, counted, and set aside where it is too often.

Any number of workers may reap at once, and may die doing it: each message moves in one
script that also makes sure that its worker is still dead.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from modelserver.store.batch import REAPS, Delivery, portion
from modelserver.store.messages.delivery import Deliveries, mark_redelivered
from modelserver.store.scripts import atomic as scripts

#: A request is set aside once so many workers have died with it.
MOST_REAPS = 3


@dataclass(slots=True)
class Reaped:
    """What became of the messages of dead workers."""

    #: How many went back to their queues.
    moved: int = 0
    #: Those that are the caller's now, to be set aside.
    aside: list[Delivery] = field(default_factory=list)


async def reap(own: Deliveries) -> Reaped:
    """Give back what dead workers held."""
    client, keys = own.client, own.keys
    reply: Any = client.smembers(keys.workers)
    names: set[bytes] = await reply
    others = sorted(name.decode() for name in names if name != own.worker.encode())
    reaped = Reaped()
    if not others:
        return reaped
    alive = await client.mget([keys.worker(name) for name in others])
    for name, lease in zip(others, alive, strict=True):
        if lease is None:
            await _reap_one(own, name, reaped)
    return reaped


async def _reap_one(own: Deliveries, worker: str, reaped: Reaped) -> None:
    client, keys = own.client, own.keys
    unacked, lease = keys.unacked(worker), keys.worker(worker)
    pipe = client.pipeline(transaction=False)
    pipe.hkeys(unacked)
    pipe.get(keys.trial(worker))
    tags, on_trial = await pipe.execute()
    pipe = client.pipeline(transaction=False)
    for tag in tags:
        pipe.hstrlen(unacked, tag)
    sizes = await pipe.execute() if tags else []
    while tags:
        number = portion(sizes)
        some, tags, sizes = tags[:number], tags[number:], sizes[number:]
        await _move(own, worker, some, on_trial if on_trial else b"", reaped)
    pipe = client.pipeline(transaction=False)
    pipe.eval(scripts.FORGET, 3, lease, unacked, keys.workers, worker)
    pipe.delete(keys.trial(worker))
    await pipe.execute()


async def _move(
    own: Deliveries, worker: str, tags: list[bytes], on_trial: bytes, reaped: Reaped
) -> None:
    client, keys = own.client, own.keys
    unacked, lease = keys.unacked(worker), keys.worker(worker)
    reply: Any = client.hmget(unacked, tags)
    values: list[bytes | None] = await reply
    pipe = client.pipeline(transaction=False)
    adopted = []
    for tag, value in zip(tags, values, strict=True):
        if value is None:
            continue
        source, raw = split_held(value)
        # A worker says which request it has under suspicion: then no other is.
        raw, count = _counted(raw, blamed=on_trial in (b"", tag))
        if count >= MOST_REAPS:
            held = source.encode() + b"\n" + raw
            where = (unacked, own.unacked, lease, keys.tags, keys.workers)
            new = (own.next_pull(), own.worker)
            pipe.eval(scripts.ADOPT, len(where), *where, tag, held, *new)
            adopted.append((len(pipe.command_stack) - 1, source, raw))
        else:
            bell = keys.bell(keys.queue_of(source))
            pipe.eval(scripts.REAP, 3, unacked, source, lease, tag, raw, bell)
    replies = await pipe.execute()
    for place, source, raw in adopted:
        if replies[place]:
            reaped.aside.append(Delivery(replies[place].decode(), source, raw))
    places = {place for place, _, _ in adopted}
    reaped.moved += sum(r for at, r in enumerate(replies) if at not in places)


def split_held(value: bytes) -> tuple[str, bytes]:
    """List and message of what a worker holds."""
    source, brace, rest = value.partition(b"\n{")
    if brace:
        return source.decode(errors="replace"), b"{" + rest
    source, _, rest = value.partition(b"\n")
    return source.decode(errors="replace"), rest


def reaps_of(headers: dict[str, Any]) -> int:
    """How many workers died with the message of these headers."""
    count = headers.get(REAPS)
    return count if isinstance(count, int) else 0


def _counted(raw: bytes, blamed: bool) -> tuple[bytes, int]:
    """The message as redelivered, and how many workers have died with it.

    What is no message stays as it is: whoever takes it refuses it.
    """
    try:
        message = orjson.loads(raw)
        headers = message["headers"]
        count = reaps_of(headers) + blamed
        headers[REAPS] = count
    except (ValueError, KeyError, TypeError, AttributeError):
        return raw, 0
    return mark_redelivered(orjson.dumps(message)), count
