"""How the workers of one host share the limits of its engines.

Each says what it may have in flight on each engine, and gets more only of what all
others leave: so together they never exceed a limit. One that joins, or that the server
does not know any more, gets no more until all others that live have said theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from modelserver.store.messages.delivery import Deliveries
from modelserver.store.scripts.atomic import ALLOW_OOM

#: How long after a server's start its workers may still be about to say what they have,
#: in seconds: it may have lost that.
COMING_BACK_SECONDS = 3

#: Writes down what a worker may have in flight, as far as the others leave it. KEYS the
#: host's hash of shares, one's own lease, set of workers; ARGV one's name, one's
#: process, 1 if one stays, JSON of {engine: {in flight, wanted, limit, prompt tokens,
#: asked, had}}, the beginning of leases' names, JSON of workers whose process is gone,
#: of those whose lease has ended for long, 1 if one has heard of all others, the host,
#: COMING_BACK_SECONDS. Returns {} without a lease of one's own; else one's shares as
#: JSON, 1 if one has heard of all others, and then for each other worker its name, 1 if
#: its lease stands, and what it has written down.
SHARE = (
    ALLOW_OOM
    + """
if redis.call('EXISTS', KEYS[2]) == 0 then return {} end
for _, name in ipairs(cjson.decode(ARGV[6])) do
  redis.call('DEL', ARGV[5] .. name)
  redis.call('HDEL', KEYS[1], name)
end
for _, name in ipairs(cjson.decode(ARGV[7])) do
  if redis.call('EXISTS', ARGV[5] .. name) == 0 then
    redis.call('HDEL', KEYS[1], name)
  end
end
local out, taken, heard = {'', 1}, {}, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  heard[all[i]] = true
  if all[i] ~= ARGV[1] then
    for engine, use in pairs(cjson.decode(all[i + 1])['engines']) do
      taken[engine] = (taken[engine] or 0) + use[1]
    end
    out[#out + 1] = all[i]
    out[#out + 1] = redis.call('EXISTS', ARGV[5] .. all[i])
    out[#out + 1] = all[i + 1]
  end
end
if ARGV[8] == '0' or not heard[ARGV[1]] then
  local info = redis.call('INFO', 'server')
  local up = tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  if up < tonumber(ARGV[10]) then out[2] = 0 end
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    local lease = name ~= ARGV[1] and not heard[name]
      and redis.call('GET', ARGV[5] .. name)
    local report = lease and cjson.decode(lease)
    if report and report.host == ARGV[9] then
      out[2] = 0
      out[#out + 1] = name
      out[#out + 1] = 1
      out[#out + 1] = cjson.encode(
        {process = report.process or '', stays = true, engines = {}}
      )
    end
  end
end
local own, shares = {}, {}
for engine, use in pairs(cjson.decode(ARGV[4])) do
  local left = math.max(0, use[3] - (taken[engine] or 0))
  shares[engine] = math.min(use[2], left)
  if out[2] == 0 then shares[engine] = math.min(shares[engine], use[6]) end
  own[engine] = {math.max(use[1], shares[engine]), use[1], use[4], use[5]}
end
local entry = {process = ARGV[2], stays = ARGV[3] == '1', engines = own}
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(entry))
redis.call('EXPIRE', KEYS[1], 86400)
out[1] = cjson.encode(shares)
return out
"""
)


@dataclass(frozen=True, slots=True)
class ShareNeed:
    """What a worker has and wants of one engine."""

    #: Its requests on the engine.
    inflight: int
    #: How many it is to have at most.
    wanted: int
    #: How many all workers together may have.
    limit: int
    #: How many it may have so far.
    had: int = 0
    #: Prompt tokens that it has sent so far.
    admitted: int = 0
    #: How many it could have, for the others to know.
    asked: int = 0


class Taken(NamedTuple):
    """What another worker has of an engine, in the order in which it is stored."""

    #: How many requests it may have.
    share: int
    inflight: int
    #: Prompt tokens that it has sent so far.
    admitted: int
    #: How many requests it could have.
    asked: int


@dataclass(frozen=True, slots=True)
class Sharer:
    """A worker of the host, by its own account."""

    name: str
    #: Whether its lease stands.
    lives: bool
    #: Which process it is, "" where that is unknown.
    process: str
    #: Whether it goes on; False once it finishes what it has, and ends.
    stays: bool
    #: By engine.
    engines: Mapping[str, Taken] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shared:
    """What a worker gets, and who the others are."""

    #: By engine: how many requests the worker may have.
    shares: Mapping[str, int]
    #: Whether all that live have said what they have; until then nobody gets more.
    is_complete: bool
    others: tuple[Sharer, ...]


async def share(
    deliveries: Deliveries,
    host: str,
    own: Sharer,
    needs: Mapping[str, ShareNeed],
    gone: Sequence[str] = (),
    ended: Sequence[str] = (),
    is_sure: bool = False,
) -> Shared | None:
    """Take one's share of each engine; None where one's own lease has ended.

    ``gone`` are workers whose process is known to be gone: their leases end now, so
    that what they held goes back. ``ended`` are those whose lease ended by itself.
    With ``is_sure`` one has heard of all others since one took one's lease.
    """
    asked = {
        engine: (
            need.inflight,
            need.wanted,
            need.limit,
            need.admitted,
            need.asked,
            need.had,
        )
        for engine, need in needs.items()
    }
    keys = deliveries.keys
    reply: Any = deliveries.client.eval(
        SHARE,
        3,
        keys.shares(host),
        keys.worker(own.name),
        keys.workers,
        own.name,
        own.process,
        str(int(own.stays)),
        orjson.dumps(asked),
        keys.worker(""),
        orjson.dumps(gone),
        orjson.dumps(ended),
        str(int(is_sure)),
        host,
        str(COMING_BACK_SECONDS),
    )
    found: list[Any] = await reply
    if not found:
        return None
    triples = zip(found[2::3], found[3::3], found[4::3], strict=True)
    others = tuple(_read(*each) for each in triples)
    return Shared(orjson.loads(found[0]), bool(found[1]), others)


def _read(name: bytes, lives: int, value: bytes) -> Sharer:
    entry = orjson.loads(value)
    engines = {engine: Taken(*use) for engine, use in entry["engines"].items()}
    return Sharer(name.decode(), bool(lives), entry["process"], entry["stays"], engines)


async def give_up_shares(deliveries: Deliveries, host: str) -> None:
    """Leave one's shares to the others: the worker ends."""
    removed: Any = deliveries.client.hdel(
        deliveries.keys.shares(host), deliveries.worker
    )
    await removed
