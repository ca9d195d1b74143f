"""Reads what another version of modelserver may have written.

A record that cannot be read is left out, and said once in the log: it must not keep
anybody from all the others.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from modelserver.store.server.state import Store

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Stored = TypeVar("_Stored")

#: What the reading of a record in another form ends with.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)


def read_each(
    store: Store,
    kind: str,
    values: Mapping[str, _Stored],
    read: Callable[[_Stored], _T],
) -> dict[str, _T]:
    """The records that can be read, by name, as they come; ``kind`` is for people.

    >>> from modelserver.store import Keys
    >>> store = Store(None, Keys("ms:"))
    >>> read_each(store, "number of", {"b": "2", "a": "two"}, int)
    {'b': 2}
    """
    found = {}
    for name, value in values.items():
        try:
            found[name] = read(value)
        except UNREADABLE as error:
            note_unreadable(store, f"{kind} {name}", error)
    return found


def recall(
    store: Store, kind: str, text: str, read: Callable[[str], _T], nothing: _T
) -> _T:
    """What was remembered, ``nothing`` where that is nothing or cannot be read."""
    return read_each(store, kind, {"": text} if text else {}, read).get("", nothing)


def note_unreadable(store: Store, what: str, error: Exception) -> None:
    """Say that a record cannot be read, once for each connection."""
    if what not in store.unreadable:
        store.unreadable.add(what)
        _log.warning(
            "the %s in Redis cannot be read (%r) and is left aside: another version of "
            "modelserver wrote it; upgrade this host, or write it again",
            *(what.strip(), error),
        )
