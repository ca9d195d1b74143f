"""What whoever feeds a run writes and reads: its rounds, its rows, their answers.

A round ends when the run is cancelled; what is sent after that begins the next one, so
that no row of the old one is taken for one of the new.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from modelserver.store.scripts.atomic import ALLOW_OOM, ARRIVED
from modelserver.store.scripts.runs import BITS, RUN_SECONDS, add_bit_look
from modelserver.store.server.state import RAW, Store

#: Most answers that one look takes.
MOST_ANSWERS = 500
#: Most answers that one command forgets.
MOST_FORGOTTEN = 1_000

#: The round of a run. KEYS run; ARGV seconds kept, 1 to begin a new one if the last is
#: cancelled. Returns the number of the round, 0 if there is none.
ROUND = """
local round = tonumber(redis.call('GET', KEYS[1]) or 0)
local over = round == 0 or redis.call('EXISTS', KEYS[1] .. ':' .. round .. ':cancelled')
if ARGV[2] == '1' and (over == true or over == 1) then
  round = redis.call('INCR', KEYS[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return round
"""

#: Puts bundles into their submitter's list, each unless a row of it was sent before.
#: KEYS main list, run, sent, cancelled, the note that memory is short; ARGV seconds
#: kept, bell, submitter, then for each bundle its message, how many rows it has, their
#: numbers. Returns what was not put: for each its place and the rows of it that were
#: sent before; an error where memory is short or the round is cancelled.
SEND = (
    ARRIVED
    + BITS
    + """
local short = redis.call('GET', KEYS[5])
if short then return redis.error_reply('OOM ' .. short) end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return redis.error_reply('CANCELLED the run')
end
local refused, at, place = {}, 4, 0
while at <= #ARGV do
  local first, last = at + 2, at + 1 + ARGV[at + 1]
  local known, new = {place}, {}
  for i = first, last do
    local row = tonumber(ARGV[i])
    local found = set_bit(KEYS[3], row, 1) == 1 and known or new
    found[#found + 1] = row
  end
  if #known == 1 then
    local list = list_for(KEYS[1], ARGV[3])
    local length = redis.call('LPUSH', list, ARGV[at])
    arrived(list, length, ARGV[at])
    if length == 1 then redis.call('PUBLISH', ARGV[2], '1') end
  else
    for _, row in ipairs(new) do set_bit(KEYS[3], row, 0) end
    refused[#refused + 1] = known
  end
  at, place = last + 1, place + 1
end
keep(ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
return refused
"""
)

#: Ends a round. KEYS run, cancelled; ARGV seconds kept. Returns 1 if there is a run.
CANCEL = (
    ALLOW_OOM
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], '1', 'EX', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
)


@dataclass(frozen=True, slots=True)
class SentBundle:
    """A bundle as it is sent."""

    message: bytes
    numbers: tuple[int, ...]


def read_round(store: Store, run: str, begin: bool = False) -> int:
    """The round of a run, 0 if there is none; ``begin`` makes one that goes on."""
    keys = [store.keys.run(run)]
    return int(store.run_script(ROUND, keys, RUN_SECONDS, int(begin)))


def add_send(
    pipe: Any,
    store: Store,
    run: tuple[str, int],
    place: tuple[str, int],
    submitter: str,
    bundles: Sequence[SentBundle],
) -> None:
    """Add the sending of bundles to a pipeline.

    ``run`` is its name and round, ``place`` the queue and which of its lists. The reply
    names the bundles that were not put, each with its rows that were sent before.
    """
    keys, (name, number), (queue, step) = store.keys, run, place
    names = (
        *(keys.queue(queue)[step], keys.run(name)),
        *(keys.run(name, number, part) for part in ("sent", "cancelled")),
        keys.memory_short,
    )
    arguments: list[Any] = [RUN_SECONDS, keys.bell(queue), submitter]
    for bundle in bundles:
        arguments += (bundle.message, len(bundle.numbers), *bundle.numbers)
    pipe.eval(SEND, len(names), *names, *arguments)


def cancel_round(store: Store, run: str, number: int) -> None:
    """Say that rows of this round which have not begun are not to begin."""
    keys = store.keys
    names = [keys.run(run), keys.run(run, number, "cancelled")]
    store.run_script(CANCEL, names, RUN_SECONDS)


def read_answers_since(
    store: Store, run: str, since: Sequence[str], milliseconds: int
) -> list[tuple[int, str, int, bytes]]:
    """Answers after those of each round: (round, id, row, answer), in their order.

    ``since`` has the last id seen of each round, from the first on. Waits for the first
    answer as long as that.
    """
    streams = {
        store.keys.run(run, number, "answers"): number
        for number in range(1, len(since) + 1)
    }
    wait = ("BLOCK", milliseconds) if milliseconds > 0 else ()
    reply: Any = store.run(
        *("XREAD", "COUNT", MOST_ANSWERS, *wait, "STREAMS", *streams, *since), **RAW
    )
    found = []
    for stream, entries in reply.items() if isinstance(reply, dict) else reply or ():
        number = streams[stream.decode()]
        for entry, fields in _entries(entries):
            for row, value in fields.items():
                found.append((number, entry.decode(), int(row), value))
    return found


def _entries(entries: Any) -> Iterable[tuple[bytes, dict[bytes, bytes]]]:
    """What redis-py makes of a stream, in either protocol."""
    if len(entries) == 1 and entries and isinstance(entries[0], list):
        entries = entries[0]
    return [entry for entry in entries if entry]


def forget_answers(store: Store, run: str, entries: Iterable[tuple[int, str]]) -> None:
    """Forget these answers, each named by its round and its id."""
    by_round: dict[int, list[str]] = {}
    for number, entry in entries:
        by_round.setdefault(number, []).append(entry)
    with store.client.pipeline(transaction=False) as pipe:
        for number, ids in by_round.items():
            key = store.keys.run(run, number, "answers")
            for start in range(0, len(ids), MOST_FORGOTTEN):
                pipe.execute_command("XDEL", key, *ids[start : start + MOST_FORGOTTEN])
        pipe.execute()


def find_unsent(
    store: Store, run: tuple[str, int], numbers: Sequence[int]
) -> list[int]:
    """Those rows that the server does not know as sent: it has lost them."""
    return [number for number, bit in _bits(store, run, "sent", numbers) if not bit]


def find_answered(
    store: Store, run: tuple[str, int], numbers: Sequence[int]
) -> list[int]:
    """Those rows that were answered, whether or not the answer was forgotten since."""
    return [number for number, bit in _bits(store, run, "done", numbers) if bit]


def _bits(
    store: Store, run: tuple[str, int], part: str, numbers: Sequence[int]
) -> list[tuple[int, int]]:
    with store.client.pipeline(transaction=False) as pipe:
        order = add_bit_look(pipe, store.keys.run(*run, part), numbers)
        bits = chain.from_iterable(pipe.execute())
    return list(zip(order, bits, strict=True))
