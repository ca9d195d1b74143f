"""What the next step of a chain takes over from the one before it.

Celery publishes a next step without a priority, even where it has one of its own, and
in the name of the worker that publishes it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from celery._state import get_current_worker_task

from modelserver.store.batch import SUBMITTER

#: The header of a step with a priority of its own: that of the chain's first step.
CHAIN_PRIORITY = "chain_priority"
#: Where the own priorities of a request's next steps are kept on Celery's request.
_CACHE = "modelserver_priorities"


def inherit(headers: dict[str, Any], properties: dict[str, Any]) -> None:
    """Complete a message that a worker publishes; does nothing outside of a task."""
    parent = get_current_worker_task()
    if parent is None:
        return
    request = parent.request
    submitter = getattr(request, SUBMITTER, None) or getattr(request, "origin", None)
    if submitter:
        headers.setdefault(SUBMITTER, submitter)
    info = getattr(request, "delivery_info", None) or {}
    first = getattr(request, CHAIN_PRIORITY, info.get("priority"))
    if properties.get("priority") is None:
        own = _own_priorities(request).get(str(headers.get("id")))
        properties["priority"] = first if own is None else own
    if properties["priority"] != first:
        headers.setdefault(CHAIN_PRIORITY, first)


def _own_priorities(request: Any) -> dict[str, int]:
    known: dict[str, int] | None = getattr(request, _CACHE, None)
    if known is None:
        steps = [request.chain, request.callbacks, request.errbacks, request.chord]
        known = dict(_priorities(steps))
        setattr(request, _CACHE, known)
    return known


def _priorities(value: Any) -> Iterator[tuple[str, int]]:
    """The task ids and priorities of all signatures, within groups and chords too."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _priorities(each)
    elif isinstance(value, Mapping) and "options" in value:
        options, kwargs = value["options"] or {}, value.get("kwargs") or {}
        if options.get("priority") is not None and options.get("task_id"):
            yield options["task_id"], options["priority"]
        for name in ("link", "link_error", "chord", "chain"):
            yield from _priorities(options.get(name))
        if value.get("subtask_type"):
            for name in ("tasks", "header", "body"):
                yield from _priorities(kwargs.get(name))
