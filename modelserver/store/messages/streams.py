"""Answers on their way in parts: a list of parts for each request, and a channel that
tells them to the gateway that waits.

Only the worker that has the request adds to its list, so two never tell one answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from modelserver.store.keys import Keys

#: The header that names the gateway which the parts of an answer are told to.
STREAM = "stream_to"
#: The parts of an answer are kept so many seconds after the last one.
PARTS_SECONDS = 3600

#: Said of an addition to an answer that another delivery tells: the request is another
#: worker's by now, or was sent twice, and the other one was first.
NOT_OURS = -1

#: KEYS: what the worker holds, then a list for each entry. ARGV: seconds, then for each
#: entry its tag, its place in the list, the parts, the channel and the head of its
#: message. Returns for each how many listen, or -1 for NOT_OURS.
_ADD = """
local taken = {}
for i = 2, #KEYS do
  local at = 2 + (i - 2) * 5
  local tag, place, parts = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local there = redis.call('LINDEX', KEYS[i], place)
  if redis.call('HEXISTS', KEYS[1], tag) == 0 or (there and there ~= parts) then
    taken[i - 1] = -1
  else
    if not there then
      redis.call('RPUSH', KEYS[i], parts)
      redis.call('EXPIRE', KEYS[i], ARGV[1])
    end
    taken[i - 1] = redis.call('PUBLISH', ARGV[at + 3], ARGV[at + 4] .. parts)
  end
end
return taken
"""


@dataclass(frozen=True, slots=True)
class Addition:
    """Parts of one answer that are to be told."""

    #: The delivery that they belong to.
    tag: str
    task: str
    gateway: str
    #: How many additions there were before.
    place: int
    parts: bytes


async def add_parts(
    client: Redis, keys: Keys, worker: str, additions: Sequence[Addition]
) -> list[int]:
    """Tell parts; for each how many listen, NOT_OURS where it is another worker's.

    Safe to repeat. Raises RedisError.
    """
    names = [keys.stream(each.task) for each in additions]
    values: list[Any] = [PARTS_SECONDS]
    for each in additions:
        head = orjson.dumps([each.task, each.place])
        values += (each.tag, each.place, each.parts, keys.gateway(each.gateway), head)
    found: Any = await client.eval(
        _ADD, 1 + len(names), keys.unacked(worker), *names, *values
    )
    return [int(each) for each in found]


async def read_parts(
    client: Redis, keys: Keys, task: str, first: int = 0
) -> list[list[dict[str, Any]]]:
    """The additions to an answer from a place on. Raises RedisError."""
    found: Any = client.lrange(keys.stream(task), first, -1)
    return [orjson.loads(each) for each in await found]


def read_message(data: bytes) -> tuple[str, int, list[dict[str, Any]]]:
    """A message of a gateway's channel: the task, the place, the parts.

    >>> read_message(b'["a",0][{"choices":[]}]')
    ('a', 0, [{'choices': []}])
    """
    end = data.index(b"]") + 1
    task, place = orjson.loads(data[:end])
    return task, place, orjson.loads(data[end:])
