"""Dead letters: requests set aside because engines or workers died of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis

from modelserver.decoding import decode
from modelserver.store.batch import (
    CRASHES,
    DEADLINE,
    DEADLINE_SECONDS,
    FAULTS,
    REAPS,
    SENT,
    SUSPECTS,
    TRIES,
)
from modelserver.store.messages.embedded import later_steps, read_payload
from modelserver.store.scripts import atomic as scripts
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each

#: Forgets what stands at the results KEYS, but for answers.
FORGET_ERRORS = """
for _, key in ipairs(KEYS) do
  if not string.find(redis.call('GETRANGE', key, 0, 24), '"SUCCESS"', 1, true) then
    redis.call('DEL', key)
  end
end
return #KEYS
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A request that was set aside."""

    #: The id of its task.
    task: str
    #: Its model.
    queue: str
    #: Why it was set aside.
    reason: str
    #: When, in seconds of the store's clock.
    at: float
    #: The list that it came from.
    source: str
    #: The message, as JSON.
    message: str


def dead_letters(store: Store) -> tuple[DeadLetter, ...]:
    """All of them, oldest first."""
    values = store.client.hgetall(store.keys.dead)
    pairs = {str(task): (str(task), value) for task, value in values.items()}
    letters = read_each(store, "dead letter", pairs, _read).values()
    return tuple(sorted(letters, key=lambda letter: letter.at))


def _read(pair: tuple[str, str | bytes]) -> DeadLetter:
    task, value = pair
    return decode(DeadLetter, {"task": task, **json.loads(value)})


def count_dead(store: Store) -> int:
    """How many there are."""
    count: Any = store.client.hlen(store.keys.dead)
    return int(count)


def resubmit(
    store: Store,
    letter: DeadLetter,
    result_key: Callable[[str], str],
    results: redis.Redis | None = None,
) -> bool:
    """Queue it again as if it were new; False if somebody else has done so.

    Its error is forgotten, on ``results`` if they have a server of their own, and so
    are those of later steps of its chain: they wait for new results. What was left of
    its time when it was set aside is counted from now on.
    """
    if not store.client.hexists(store.keys.dead, letter.task):
        return False
    now = store.now()
    message = _renewed(json.loads(letter.message), now, now - letter.at)
    deadline = message["headers"].get(DEADLINE, "")
    tasks = [letter.task, *later_steps(read_payload(message))]
    errors = [result_key(task) for task in tasks]
    (results or store.client).eval(FORGET_ERRORS, len(errors), *errors)
    store.client.delete(store.keys.published(letter.task))
    keys = [store.keys.dead, letter.source, store.keys.deadlines]
    bell = store.keys.bell(letter.queue)
    return bool(
        store.run_script(
            scripts.RAISE, keys, letter.task, json.dumps(message), bell, deadline
        )
    )


def _renewed(message: dict[str, Any], now: float, aside: float) -> dict[str, Any]:
    """The message without its past; it was set aside ``aside`` seconds ago."""
    headers = message["headers"]
    for count in (CRASHES, SUSPECTS, REAPS, FAULTS, TRIES):
        headers.pop(count, None)
    headers[SENT] = round(now, 2)
    properties = message.get("properties", {})
    properties.get("delivery_info", {}).pop("redelivered", None)
    if (seconds := headers.get(DEADLINE_SECONDS)) is not None:
        headers[DEADLINE] = now + seconds
    elif headers.get(DEADLINE) is not None:
        headers[DEADLINE] += aside
    if headers.get("expires"):
        expires = datetime.fromisoformat(headers["expires"])
        headers["expires"] = (expires + timedelta(seconds=aside)).isoformat()
    return message


def discard(store: Store, letter: DeadLetter) -> bool:
    """Forget it; its result stays."""
    return bool(store.client.hdel(store.keys.dead, letter.task))
