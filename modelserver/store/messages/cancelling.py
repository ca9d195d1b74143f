"""Takes waiting requests out of their queues, to answer them without executing them.

Whoever does so holds them as a worker does: if it dies, they go back.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from modelserver.store.batch import SUBMITTER, Delivery
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.scripts.atomic import ALLOW_OOM, MORE_ROWS

#: Most messages that one script takes or looks at.
MOST_TAKEN = 128

#: Takes a submitter's messages. KEYS unacked hash, counter of tags, set of workers,
#: main list, the submitter's list; ARGV number of the pull, worker, most, submitter,
#: messages of the main list to pass over. Returns how many of the main list were looked
#: at and left, and then {tag, list, message, ...}.
TAKE = (
    ALLOW_OOM
    + MORE_ROWS
    + """
local out, beyond = {0}, 0
local function hold(list, message)
  local tag = ARGV[1] .. '-' .. redis.call('INCR', KEYS[2])
  redis.call('HSET', KEYS[1], tag, list .. '\\n' .. message)
  out[#out + 1] = tag
  out[#out + 1] = list
  out[#out + 1] = message
  beyond = beyond + more_rows(message)
end
local own = redis.call('RPOP', KEYS[5], ARGV[3]) or {}
for _, message in ipairs(own) do hold(KEYS[5], message) end
if #own > 0 then
  redis.call('DECRBY', KEYS[4] .. '\\6\\22aside', #own)
  if redis.call('EXISTS', KEYS[5]) == 0 then
    redis.call('LREM', KEYS[4] .. '\\6\\22ring', 0, KEYS[5])
  end
end
local past = tonumber(ARGV[5])
local found = redis.call('LRANGE', KEYS[4], -past - ARGV[3], -past - 1)
for i = #found, 1, -1 do
  local fine, message = pcall(cjson.decode, found[i])
  local headers = fine and type(message) == 'table' and message['headers']
  if type(headers) ~= 'table' then headers = {} end
  if (headers['submitter'] or headers['origin']) == ARGV[4] then
    redis.call('LREM', KEYS[4], -1, found[i])
    hold(KEYS[4], found[i])
  else
    out[1] = out[1] + 1
  end
end
if beyond > 0 then redis.call('DECRBY', KEYS[4] .. '\\6\\22rows', beyond) end
if #out > 1 then redis.call('SADD', KEYS[3], ARGV[2]) end
return out
"""
)

#: Takes a message that is not due yet. KEYS unacked hash, counter of tags, set of
#: workers, delayed set; ARGV number of the pull, worker, member, list and message.
#: Returns its tag, '' if it is gone.
TAKE_DELAYED = (
    ALLOW_OOM
    + """
if redis.call('ZREM', KEYS[4], ARGV[3]) == 0 then return '' end
local tag = ARGV[1] .. '-' .. redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], tag, ARGV[4])
redis.call('SADD', KEYS[3], ARGV[2])
return tag
"""
)


async def take_waiting(
    deliveries: Deliveries, queue: str, submitter: str = ""
) -> AsyncIterator[list[Delivery]]:
    """The messages of a queue, or only a submitter's, a part at a time."""
    if not submitter:
        while got := await deliveries.pull(queue, MOST_TAKEN):
            yield got
        return
    keys = deliveries.keys
    for main in keys.queue(queue):
        names = (*_own(deliveries), main, keys.of_submitter(main, submitter))
        past = 0
        while True:
            values = (*_by(deliveries), str(MOST_TAKEN), submitter, str(past))
            flat: Any = await deliveries.client.eval(TAKE, 5, *names, *values)
            past += flat[0]
            if got := [
                Delivery(flat[i].decode(), flat[i + 1].decode(), flat[i + 2])
                for i in range(1, len(flat), 3)
            ]:
                yield got
            elif not flat[0]:
                break


def _own(deliveries: Deliveries) -> tuple[str, str, str]:
    """The keys of whoever takes."""
    return deliveries.unacked, deliveries.keys.tags, deliveries.keys.workers


def _by(deliveries: Deliveries) -> tuple[str, str]:
    """The number of its pull, and its name."""
    return deliveries.next_pull(), deliveries.worker


async def take_delayed(
    deliveries: Deliveries, wanted: Callable[[str, dict[str, Any]], bool]
) -> AsyncIterator[list[Delivery]]:
    """Messages that are not due yet, where ``wanted(queue, message)``."""
    keys = deliveries.keys
    names = (*_own(deliveries), keys.delayed)
    async for member, _ in deliveries.client.zscan_iter(keys.delayed):
        held = member[17:] if member[:16].isdigit() else member
        source, _, raw = held.partition(b"\n")
        if not wanted(keys.queue_of(source.decode()), _read(raw)):
            continue
        values = (*_by(deliveries), member, held)
        tag: Any = await deliveries.client.eval(TAKE_DELAYED, 4, *names, *values)
        if tag:
            yield [Delivery(tag.decode(), source.decode(), raw)]


async def running(
    deliveries: Deliveries, wanted: Callable[[str, dict[str, Any]], bool]
) -> list[str]:
    """The tasks that workers hold, where ``wanted(queue, message)``."""
    found, keys = [], deliveries.keys
    workers: Any = await deliveries.client.smembers(keys.workers)
    for worker in workers:
        name = keys.unacked(worker.decode())
        async for _, held in deliveries.client.hscan_iter(name):
            source, _, raw = held.partition(b"\n")
            message = _read(raw)
            if wanted(keys.queue_of(source.decode()), message):
                found.append(str(message["headers"]["id"]))
    return found


def submitter_of(message: dict[str, Any]) -> str:
    """Who submitted a message, "" if it does not say."""
    headers = message.get("headers") or {}
    return str(headers.get(SUBMITTER) or headers.get("origin") or "")


def _read(raw: bytes) -> dict[str, Any]:
    try:
        message = json.loads(raw)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
