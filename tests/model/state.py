"""All that the server keeps, as of one moment, and where each request is."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelserver.messaging.bundles import read_bundle
from modelserver.store.keys import PRIORITY_SEPARATOR, Keys

#: Reads every key. Returns {key, value, ...}.
READ_ALL = """
local out = {}
local read = {
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  hash = function(key) return redis.call('HGETALL', key) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  string = function(key) return redis.call('GET', key) end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  out[#out + 1] = key
  out[#out + 1] = read[kind](key)
end
return out
"""
#: How a request's id stands in its message.
TASK_ID = re.compile(r'"id": ?"(r\d+)"|^junk (r\d+)$')


def task_of(message: str) -> str:
    """The id of a message's request; broken ones of ours carry one too."""
    found = TASK_ID.search(message)
    assert found, f"a message of nobody: {message!r}"
    return found[1] or found[2]


def tasks_of(message: str) -> list[str]:
    """The ids of all that a message asks: one, or one for each row of a bundle."""
    bundle = read_bundle(message.encode())
    if bundle is None:
        return [task_of(message)]
    run, number = bundle.run
    return [row_task(run, number, row.number) for row in bundle.rows]


def row_task(run: str, number: int, row: int) -> str:
    """What a row of a run's round is called here."""
    return f"{run}/{number}/{row}"


@dataclass(frozen=True, slots=True)
class State:
    """Every key with its value: text, a list of text, or a dict of text."""

    keys: Keys
    values: dict[str, Any]

    @classmethod
    def of(cls, keys: Keys, flat: list[Any]) -> "State":
        """The state from the reply of READ_ALL."""
        return cls(keys, dict(zip(_text(flat[::2]), _text(flat[1::2]), strict=True)))

    def listed(self, key: str) -> list[str]:
        """A list, a set, or nothing."""
        found: list[str] = self.values.get(key, [])
        return found

    def pairs(self, key: str) -> dict[str, str]:
        """A hash or a sorted set."""
        flat = self.listed(key)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def lists(self, main: str) -> dict[str, list[str]]:
        """A main list and those beside it that have messages, next message first."""
        beside = self.keys.of_submitter(main, "")
        names = [key for key in self.values if key == main or key.startswith(beside)]
        return {name: self.values[name][::-1] for name in names}

    def beside(self, main: str, name: str) -> str:
        """The key that is kept beside a main list."""
        return f"{main}{PRIORITY_SEPARATOR}{name}"

    def held(self, worker: str) -> dict[str, str]:
        """What a worker holds, by tag."""
        return self.pairs(self.keys.unacked(worker))

    def leased(self, worker: str) -> bool:
        """Whether a worker's lease stands."""
        return self.keys.worker(worker) in self.values

    def results(self) -> dict[str, str]:
        """The results by task, answers to rows among them."""
        start = self.keys.result("")
        found = self.values.items()
        results = {k.removeprefix(start): v for k, v in found if k.startswith(start)}
        return results | self.row_answers()

    def row_answers(self) -> dict[str, str]:
        """The answers to rows that nobody has settled."""
        head, found = self.keys.run(""), dict[str, str]()
        for key, entries in self.values.items():
            if not (key.startswith(head) and key.endswith(":answers")):
                continue
            run, number, _ = key.removeprefix(head).split(":")
            for _, (row, value) in entries:
                task = row_task(run, int(number), int(row))
                assert task not in found, f"{task} is answered twice"
                found[task] = value
        return found

    def dead(self) -> frozenset[str]:
        """The tasks that were set aside."""
        return frozenset(self.pairs(self.keys.dead))

    def places(self, mains: list[str]) -> dict[str, list[str]]:
        """Where the messages of each task are, dead letters left aside."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for task, place in self._placed(mains):
            found[task].append(place)
        return found

    def _placed(self, mains: list[str]) -> Iterator[tuple[str, str]]:
        for main in mains:
            for name, messages in self.lists(main).items():
                for message in messages:
                    yield from ((task, name) for task in tasks_of(message))
        for key in self.values:
            if key.startswith(self.keys.unacked("")):
                for tag, held in self.pairs(key).items():
                    tasks = tasks_of(held.partition("\n")[2])
                    yield from ((task, f"{key} {tag}") for task in tasks)
        for member in self.pairs(self.keys.delayed):
            tasks = tasks_of(member.rpartition("\n")[2])
            yield from ((task, self.keys.delayed) for task in tasks)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")  # Bitmaps are no text.
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value
