"""Responses that are kept, so that conversations go on from them, in a folder.

Each key has a folder of its own there. An item of an answer is found by its own id as
well, since clients send that in the item's place.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from modelserver.decoding import decode
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.files import read_json, write_json
from modelserver.gateway.reading import MOST_BODY_BYTES
from modelserver.operations.kept_responses import (
    STEP_SECONDS,
    find_cutoff,
    read_entries,
    read_kept,
)
from modelserver.values import Json

#: What an engine, or a client, may call a response or an item.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
#: The type of an item that stands for another one.
_REFERENCE = "item_reference"


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """One response, and what it was asked with."""

    #: The body that its client got.
    body: Mapping[str, Json]
    #: The items of its request, without those of what it goes on from.
    items: tuple[Json, ...] = ()
    #: The response that it goes on from, "" for none.
    previous: str = ""


class ResponseFolder:
    """The responses of one folder. Blocks: not for a loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, record: ResponseRecord, owner: str) -> int:
        """Keep a response, if its id is one that can be asked for; its bytes.

        Raises OSError.
        """
        path = self._find_path(record.body.get("id"), owner)
        if path is None:
            return 0
        for folder in (self._folder.parent, self._folder, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, asdict(record))
        for link in self._links(record, owner):
            link.unlink(missing_ok=True)
            os.link(path, link)
        return path.stat().st_size

    def find(self, response: str, owner: str) -> ResponseRecord | None:
        """One response of this owner."""
        record = self._read(response, owner)
        return record if record and record.body.get("id") == response else None

    def remove(self, record: ResponseRecord, owner: str) -> None:
        """Remove a response and its items."""
        for link in self._links(record, owner):
            link.unlink(missing_ok=True)
        if path := self._find_path(record.body["id"], owner):
            path.unlink(missing_ok=True)

    def remove_old(self, now: float, most_bytes: float = math.inf) -> float:
        """Remove what nobody has used for long, and the oldest of what is too much.

        Returns the bytes that are left. Raises OSError.
        """
        kept = read_kept(self._folder)
        cutoff = find_cutoff(kept, most_bytes, now)
        if min(kept.sizes, default=math.inf) * STEP_SECONDS >= cutoff:
            return kept.size
        for path, found in read_entries(self._folder):
            # Another gateway may be quicker.
            with suppress(FileNotFoundError):
                if found.st_mtime < cutoff:
                    os.unlink(path)
        return sum(
            size for at, size in kept.sizes.items() if at * STEP_SECONDS >= cutoff
        )

    def with_past(self, body: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
        """The body with all that was said before in its input. Raises Refused."""
        given, name = body.get("input"), body.get("previous_response_id")
        if not name and not _has_references(given):
            return body
        items = items_of(given)
        if name:
            previous = self.find(name, owner) if isinstance(name, str) else None
            if previous is None:
                raise Refused(_unknown_previous(name))
            items = (*self.said(previous, owner), *previous.body["output"], *items)
        whole = (self._resolved(each, owner) for each in items)
        return {**body, "input": _bounded(whole)}

    def said(self, record: ResponseRecord, owner: str) -> tuple[Json, ...]:
        """All that a response answers, the first first. Raises Refused."""
        found, names = record.items, {record.body["id"]}
        while name := record.previous:
            # Engines let clients name responses: one may go on from itself.
            before = self.find(name, owner) if name not in names else None
            if before is None:
                raise Refused(_unknown_previous(name))
            record = before
            names.add(name)
            found = (*record.items, *record.body["output"], *found)
        return found

    def _resolved(self, item: Json, owner: str) -> Json:
        if not _is_reference(item):
            return item
        name = item["id"]
        record = self._read(name, owner)
        output = record.body["output"] if record else ()
        for each in output:
            if each.get("id") == name:
                return each
        text = f"input names the item {name!r}, which is not kept; send the item itself"
        raise Refused(Fault(404, text, param="input"))

    def _read(self, name: Any, owner: str) -> ResponseRecord | None:
        path = self._find_path(name, owner)
        found = read_json(path) if path else {}
        if not path or not found:
            return None
        with suppress(FileNotFoundError):
            os.utime(path)  # It is used: it stays.
        return decode(ResponseRecord, found)

    def _links(self, record: ResponseRecord, owner: str) -> Iterator[Path]:
        for item in record.body["output"]:
            if path := self._find_path(item.get("id"), owner):
                yield path

    def _find_path(self, name: Any, owner: str) -> Path | None:
        """Where a record lies or would, None if the name is no id."""
        if not isinstance(name, str) or not _ID.fullmatch(name):
            return None
        whose = hashlib.sha256(owner.encode()).hexdigest()[:32]
        return self._folder / whose / f"{name}.json"


def items_of(given: Any) -> tuple[Any, ...]:
    """The items of an input, which may be a text.

    >>> items_of("hi")[0]["content"]
    [{'type': 'input_text', 'text': 'hi'}]
    """
    if isinstance(given, str):
        content = [{"type": "input_text", "text": given}]
        return ({"type": "message", "role": "user", "content": content},)
    return tuple(given) if isinstance(given, list) else ()


def _bounded(items: Iterable[Json]) -> list[Json]:
    """Items that are no more than a body may be. Raises Refused.

    A short body may name a long item many times.
    """
    found, size = [], 0
    for item in items:
        size += len(orjson.dumps(item))
        if size > MOST_BODY_BYTES:
            text = (
                f"input and what was said before are larger than {MOST_BODY_BYTES:,} "
                "bytes; begin a new conversation, or name fewer items"
            )
            raise Refused(Fault(413, text, param="input", code="request_too_large"))
        found.append(item)
    return found


def _has_references(given: Any) -> bool:
    return isinstance(given, list) and any(map(_is_reference, given))


def _is_reference(item: Any) -> bool:
    """Whether an item is another's id only; clients may leave its type out."""
    if not isinstance(item, Mapping) or "id" not in item:
        return False
    return item.get("type") == _REFERENCE or item.keys() == {"id"}


def _unknown_previous(name: Any) -> Fault:
    text = (
        f"previous_response_id names no response that is kept: {name!r}; send all that "
        "was said as input"
    )
    code = "previous_response_not_found"
    return Fault(400, text, param="previous_response_id", code=code)
