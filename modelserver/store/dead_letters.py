"""Dead letters: requests set aside because engines or workers died of them."""

import json
from dataclasses import dataclass
from typing import Any

from modelserver.decoding import decode
from modelserver.store import scripts
from modelserver.store.batch import CRASHES, FAULTS, REAPS
from modelserver.store.state import Store


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
    letters = [
        decode(DeadLetter, {"task": str(task), **json.loads(value)})
        for task, value in values.items()
    ]
    return tuple(sorted(letters, key=lambda letter: letter.at))


def count_dead(store: Store) -> int:
    """How many there are."""
    count: Any = store.client.hlen(store.keys.dead)
    return int(count)


def resubmit(store: Store, letter: DeadLetter, result_key: str) -> bool:
    """Queue it again as if it were new; False if somebody else has done so.

    Its result, the error, is forgotten: ``AsyncResult(task)`` waits for a new one.
    """
    message = json.loads(letter.message)
    for count in (CRASHES, REAPS, FAULTS):
        message["headers"].pop(count, None)
    message["properties"].get("delivery_info", {}).pop("redelivered", None)
    keys = [store.keys.dead, letter.source, result_key]
    bell = store.keys.bell(letter.queue)
    return bool(
        store.client.eval(
            scripts.RAISE, len(keys), *keys, letter.task, json.dumps(message), bell
        )
    )


def discard(store: Store, letter: DeadLetter) -> bool:
    """Forget it; its result stays."""
    return bool(store.client.hdel(store.keys.dead, letter.task))
