"""What control decided, newest first, and what it decided from."""

import zlib
from collections.abc import Mapping
from typing import Any

from modelserver.store.server.state import DEFLATE_LEVEL, RAW, Store
from modelserver.values import split_engine_id

#: Decisions that the stream keeps, about.
DECISIONS_KEPT = 10_000
#: Decisions that ``last_decisions`` looks through.
DECISIONS_SCANNED = 500
#: Snapshots that are kept at most.
SNAPSHOTS_KEPT = 200
#: Bytes of snapshots that are kept at most: fewer snapshots of a large fleet.
SNAPSHOT_BYTES_KEPT = 16 * 2**20


def log_decision(store: Store, fields: Mapping[str, str]) -> None:
    """Append one decision and what it was made from."""
    store.client.xadd(
        store.keys.decisions,
        dict(fields),  # type: ignore[arg-type]
        maxlen=DECISIONS_KEPT,
        approximate=True,
    )


def last_decisions(store: Store, engine: str, number: int = 5) -> list[dict[str, str]]:
    """The last decisions about an engine, with the stream's id of each."""
    about = recent_decisions(store)
    return [each for each in about if each.get("engine") == engine][:number]


def recent_decisions(
    store: Store, number: int = DECISIONS_SCANNED
) -> list[dict[str, str]]:
    """The last decisions about anything, newest first, with the stream's ids."""
    client: Any = store.client
    entries = client.xrevrange(store.keys.decisions, count=number)
    return [{"id": key, **values} for key, values in entries]


def decisions_about(store: Store, target: str, number: int) -> list[dict[str, str]]:
    """The last decisions about an engine or a model, newest last."""
    client: Any = store.client
    entries = client.xrevrange(store.keys.decisions)
    about = [values for _, values in entries if target in subjects_of(values)]
    return about[:number][::-1]


def subjects_of(values: Mapping[str, str]) -> tuple[str, ...]:
    """What a decision is about: an engine, a model, or both; "" for neither."""
    engine = values.get("engine", "")
    return engine, values.get("model", ""), split_engine_id(engine)[0]


def keep_look(store: Store, look: bytes) -> str:
    """Keep what decisions were made from, as JSON; returns its id for the log."""
    data = zlib.compress(look, DEFLATE_LEVEL)
    client: Any = store.client
    kept = max(1, min(SNAPSHOTS_KEPT, SNAPSHOT_BYTES_KEPT // len(data)))
    key: str = client.xadd(
        store.keys.snapshots, {"look": data}, maxlen=kept, approximate=False
    )
    return key


def kept_look(store: Store, key: str) -> bytes | None:
    """What decisions with this id were made from, None if it is kept no longer."""
    command = ("XRANGE", store.keys.snapshots, key, key)
    entries: Any = store.client.execute_command(*command, **RAW)
    return zlib.decompress(entries[0][1][b"look"]) if entries else None
