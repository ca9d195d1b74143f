"""The bodies of answers as they go out: JSON, and lists in pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from aiohttp import web

from modelserver.gateway.faults import Fault, Refused

T = TypeVar("T")

#: A list shows so many entries, unless told otherwise, and at most.
LISTED, MOST_LISTED = 20, 100


def json_response(body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with this JSON."""
    return web.Response(
        body=orjson.dumps(body), content_type="application/json", headers=headers
    )


def error_response(fault: Fault) -> web.Response:
    """An error as an answer."""
    response = json_response(fault.body(), dict(fault.headers))
    response.set_status(fault.status)
    return response


def list_page(
    found: Sequence[T],
    ids: Sequence[str],
    describe: Callable[[T], dict[str, Any]],
    query: Mapping[str, str],
    listed: int = LISTED,
    most: int = MOST_LISTED,
) -> dict[str, Any]:
    """A page of a list, by OpenAI's ``after``, ``limit`` and ``order`` in ``query``.

    The list has the newest first. Only what is shown is described. Raises Refused.

    >>> names = ["c", "b", "a"]
    >>> page = list_page(names, names, lambda name: {"id": name}, {"limit": "1"})
    >>> page["data"], page["has_more"]
    ([{'id': 'c'}], True)
    >>> asked = {"after": "a", "order": "asc"}
    >>> list_page(names, names, lambda name: {"id": name}, asked)["data"]
    [{'id': 'b'}, {'id': 'c'}]
    """
    limit = _whole(query, "limit", listed, most)
    if query.get("order", "desc") not in ("asc", "desc"):
        raise _wrong("order", query, 'must be "asc" or "desc"')
    if query.get("order") == "asc":
        found, ids = found[::-1], ids[::-1]
    after = query.get("after")
    if after and after not in ids:
        # From the beginning a client that goes through all pages would never end.
        raise _wrong("after", query, "names nothing of this list")
    first = ids.index(after) + 1 if after else 0
    data = [describe(each) for each in found[first : first + limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": first + limit < len(found),
    }


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = query.get(name, str(default))
    if value.isascii() and value.isdecimal() and len(value) < 10:
        number = int(value)
        if 1 <= number <= most:
            return number
    raise _wrong(name, query, f"must be a whole number from 1 to {most:,}")


def _wrong(name: str, query: Mapping[str, str], told: str) -> Refused:
    text = f"{name} {told}, not {query[name][:64]!r}"
    return Refused(Fault(400, text, param=name))
