"""The bodies of answers as they go out: JSON, and lists in pages."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import orjson
from aiohttp import web

T = TypeVar("T")

#: A list shows so many entries, unless told otherwise, and at most.
LISTED, MOST_LISTED = 20, 100


def json_response(body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with this JSON."""
    return web.Response(
        body=orjson.dumps(body), content_type="application/json", headers=headers
    )


def list_page(
    found: Sequence[T],
    ids: Sequence[str],
    describe: Callable[[T], dict[str, Any]],
    query: Mapping[str, str],
    listed: int = LISTED,
    most: int = MOST_LISTED,
) -> dict[str, Any]:
    """A page of a list, by OpenAI's ``after``, ``limit`` and ``order`` in ``query``.

    The list has the newest first. Only what is shown is described.

    >>> names = ["c", "b", "a"]
    >>> page = list_page(names, names, lambda name: {"id": name}, {"limit": "1"})
    >>> page["data"], page["has_more"]
    ([{'id': 'c'}], True)
    >>> asked = {"after": "a", "order": "asc"}
    >>> list_page(names, names, lambda name: {"id": name}, asked)["data"]
    [{'id': 'b'}, {'id': 'c'}]
    """
    limit = listed
    with suppress(ValueError):
        limit = int(query.get("limit", listed))
    limit = max(1, min(limit, most))
    if query.get("order") == "asc":
        found, ids = found[::-1], ids[::-1]
    after = query.get("after")
    first = ids.index(after) + 1 if after in ids else 0
    data = [describe(each) for each in found[first : first + limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": first + limit < len(found),
    }
