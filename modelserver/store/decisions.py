"""What control decided, newest first, as ``Store.log_decision`` keeps it."""

from typing import Any

from modelserver.store.state import Store

#: Decisions that are looked through; the stream keeps more.
SCANNED = 500


def last_decisions(store: Store, engine: str, number: int = 5) -> list[dict[str, str]]:
    """The last decisions about an engine, with the stream's id of each."""
    client: Any = store.client
    entries = client.xrevrange(store.keys.decisions, count=SCANNED)
    about = [{"id": key, **values} for key, values in entries]
    return [each for each in about if each.get("engine") == engine][:number]
