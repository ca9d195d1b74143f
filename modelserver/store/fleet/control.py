"""What control holds and writes: its lock, wishes, its memory, signs of its work."""

import dataclasses
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modelserver.decoding import decode
from modelserver.store.scripts import state as state_scripts
from modelserver.store.server.state import DEFLATE_LEVEL, RAW, Store
from modelserver.store.server.versions import read_each, recall
from modelserver.values import Wish

#: Whoever is killed while holding control's lock blocks others this long, in seconds.
CONTROL_LOCK_SECONDS = 10.0
#: The part of control's memory about the health of engines.
HEALTH_MEMORY = "health"
#: The part of control's memory about how many engines each model gets.
MOVES_MEMORY = "moves"


@contextmanager
def hold_control(store: Store, owner: str, seconds: float) -> Iterator[int]:
    """Hold the controller's lock; yields the fencing token, 0 if another has it."""
    keys = [store.keys.lock, store.keys.token]
    token = int(store.run_script(state_scripts.LOCK, keys, owner, int(seconds * 1000)))
    try:
        yield token
    finally:
        if token:
            store.run_script(state_scripts.UNLOCK, keys[:1], owner)


def read_wishes(store: Store) -> dict[str, Wish]:
    """What control wants, by engine."""
    return read_all_wishes(store)[0]


def read_all_wishes(store: Store) -> tuple[dict[str, Wish], frozenset[str]]:
    """The same, and the engines whose wishes cannot be read."""
    values = dict(sorted(store.run("HGETALL", store.keys.desired).items()))
    found = read_each(store, "wish for engine", values, _decode_wish)
    return found, frozenset(values.keys() - found.keys())


def write_wishes(
    store: Store,
    token: int,
    wishes: Mapping[str, Wish | None],
    memory: Mapping[str, str] | None = None,
) -> bool:
    """Write wishes (None deletes), and parts of control's memory with them.

    Writes neither, and returns False, if a newer controller has come.
    """
    pairs: list[str | bytes] = []
    for engine, wish in wishes.items():
        value = json.dumps(dataclasses.asdict(wish)) if wish else ""
        pairs += [engine, value]
    for part, text in (memory or {}).items():
        pairs += [part, zlib.compress(text.encode(), DEFLATE_LEVEL)]
    keys = [store.keys.token, store.keys.desired, store.keys.changed, store.keys.memory]
    return bool(store.run_script(state_scripts.WISH, keys, token, len(wishes), *pairs))


def read_memory(store: Store) -> dict[str, str]:
    """What control remembers, by part."""
    values: dict[bytes, bytes] = store.run("HGETALL", store.keys.memory, **RAW)
    return {
        part.decode(): zlib.decompress(value).decode() for part, value in values.items()
    }


def report_steered(store: Store, owner: str) -> None:
    """Leave a sign that control has looked at the fleet now."""
    store.client.set(store.keys.steered, json.dumps([store.now(), owner]))


def read_steered(store: Store) -> tuple[float, str]:
    """When control last looked at the fleet, and who; (0, "") if it never did."""
    value = store.client.get(store.keys.steered)
    return recall(store, "sign of control", str(value or ""), _read_sign, (0.0, ""))


def report_waiting(store: Store, waiting: Mapping[str, str]) -> None:
    """Say which engines have no place now, and why; replaces what was said."""
    with store.client.pipeline() as pipe:
        pipe.delete(store.keys.waiting)
        if waiting:
            pairs = [part for pair in waiting.items() for part in pair]
            pipe.hset(store.keys.waiting, items=pairs)
        pipe.execute()


def read_waiting(store: Store) -> dict[str, str]:
    """Why control found no place for an engine, by engine."""
    return dict(sorted(store.run("HGETALL", store.keys.waiting).items()))


def _read_sign(text: str) -> tuple[float, str]:
    at, owner = json.loads(text)[:2]
    return float(at), str(owner)


def _decode_wish(value: str) -> Wish:
    fields = json.loads(value)
    if "drained" not in fields:  # Version 0.1 told by the text who holds an engine.
        fields["drained"] = fields.get("hold", "").startswith("drained by ")
    return decode(Wish, fields)
