"""What workers do with the rows of runs: the scripts, and how their replies are read.

A row's bit in ``done`` says that it is answered: whoever sets it appends the answer to
the stream, so there is one answer to each row, whatever was delivered twice.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from modelserver.store.batch import RowAnswer
from modelserver.store.keys import Keys
from modelserver.store.scripts.atomic import ALLOW_OOM, ARRIVED

#: What a run left is kept so many seconds after it was last touched.
RUN_SECONDS = 7 * 86_400

#: Rows of one bitmap, so that numbers far apart take no room between them.
ROWS_PER_BITMAP = 1 << 20

#: What a script begins with that asks for rows' bits: it sets one, and says what it
#: was. At its end, ``keep`` has the bitmaps that it wrote to live on for so long.
BITS = """
local bitmaps = {}
local function set_bit(head, row, value)
  local segment = math.floor(row / 1048576)
  local key = head .. ':' .. string.format('%.0f', segment)
  bitmaps[key] = true
  return redis.call('SETBIT', key, string.format('%.0f', row % 1048576), value)
end
local function keep(seconds)
  for key in pairs(bitmaps) do redis.call('EXPIRE', key, seconds) end
end
"""

#: Stores answers to rows of one run, each unless its bundle is no longer the worker's
#: or the row is answered. KEYS unacked hash, totals, done, answers; ARGV seconds kept,
#: then for each row its bundle's tag, its number, the answer. Returns for each: 1
#: stored, 0 not the worker's bundle, -1 answered before.
STORE_ROWS = (
    ALLOW_OOM
    + BITS
    + """
local out, own = {}, {}
local stored, fenced, repeated = 0, 0, 0
for i = 2, #ARGV, 3 do
  local tag, result = ARGV[i], 1
  if own[tag] == nil then own[tag] = redis.call('HEXISTS', KEYS[1], tag) == 1 end
  if not own[tag] then
    result, fenced = 0, fenced + 1
  elseif set_bit(KEYS[3], tonumber(ARGV[i + 1]), 1) == 1 then
    result, repeated = -1, repeated + 1
  else
    redis.call('XADD', KEYS[4], '*', ARGV[i + 1], ARGV[i + 2])
    stored = stored + 1
  end
  out[#out + 1] = result
end
keep(ARGV[1])
redis.call('EXPIRE', KEYS[4], ARGV[1])
if stored > 0 then redis.call('HINCRBY', KEYS[2], 'stored', stored) end
if fenced > 0 then redis.call('HINCRBY', KEYS[2], 'fenced', fenced) end
if repeated > 0 then redis.call('HINCRBY', KEYS[2], 'repeated', repeated) end
return out
"""
)

#: Puts rows of a held bundle back as messages of their own, once. KEYS unacked hash,
#: list; ARGV tag, bell, rows that the held message has until now, that message without
#: them ('' if none stay), the messages, the last to be served first.
SPLIT = (
    ALLOW_OOM
    + ARRIVED
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local head = #KEYS[2] + 2
if more_rows(string.sub(held, head, head + 31)) + 1 ~= tonumber(ARGV[3]) then
  return 0
end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], KEYS[2] .. '\\n' .. ARGV[4])
end
for i = 5, #ARGV do
  arrived(KEYS[2], redis.call('RPUSH', KEYS[2], ARGV[i]), ARGV[i])
end
redis.call('PUBLISH', ARGV[2], '1')
return 1
"""
)


def add_bit_look(pipe: Any, head: str, numbers: Sequence[int]) -> list[int]:
    """Add a look at rows' bits to a pipeline; the rows in the order of its replies."""
    order = []
    ordered = sorted(numbers)
    for segment, each in groupby(ordered, lambda number: number // ROWS_PER_BITMAP):
        rows = list(each)
        ask = [part for n in rows for part in ("GET", "u1", n % ROWS_PER_BITMAP)]
        pipe.execute_command("BITFIELD", f"{head}:{segment}", *ask)
        order += rows
    return order


#: By run: the places of its rows in a batch.
Places = list[list[int]]


def add_row_answers(
    pipe: Any, keys: Keys, unacked: str, rows: Sequence[RowAnswer]
) -> Places:
    """Add the storing of these answers to a pipeline, a script for each run."""
    order = sorted(range(len(rows)), key=lambda place: _round_of(rows[place]))
    places = []
    for (run, number), each in groupby(order, lambda place: _round_of(rows[place])):
        own = list(each)
        arguments: list[Any] = []
        for place in own:
            row = rows[place]
            arguments += (row.tag, row.number, row.value)
        names = (
            *(unacked, keys.answers),
            *(keys.run(run, number, "done"), keys.run(run, number, "answers")),
        )
        pipe.eval(STORE_ROWS, len(names), *names, RUN_SECONDS, *arguments)
        places.append(own)
    return places


def _round_of(row: RowAnswer) -> tuple[str, int]:
    return row.run, row.round


def rows_stored(replies: Sequence[Any], places: Places) -> list[int]:
    """What became of each row, in their order, from the replies to what was added."""
    found = [0] * sum(map(len, places))
    for reply, own in zip(replies, places, strict=False):
        for place, stored in zip(own, reply, strict=True):
            found[place] = stored
    return found
