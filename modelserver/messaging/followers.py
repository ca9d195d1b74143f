"""What follows a task: links, the next step of its chain, errbacks.

Celery publishes them before the answer is stored. A worker does so afterwards, and only
while the message is still its own: an answer that was refused has no followers. Each
has an id that every run of the task would give it, and is published once for all runs.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from celery import group

#: Makes the ids of followers that their sender gave none.
_NAMESPACE = uuid.UUID("6d0c1a52-7f60-5e0c-9a4f-5b1f0c2f8b11")


@dataclass(frozen=True, slots=True)
class Origin:
    """The delivery whose followers are published."""

    #: The key of what its worker holds.
    unacked: str
    #: Its tag.
    tag: str
    #: The key of the followers that were published.
    published: str


#: The delivery whose followers this thread publishes, if it does.
origin: ContextVar[Origin | None] = ContextVar("origin", default=None)


@dataclass(frozen=True, slots=True)
class Deferred:
    """A call of Celery's that publishes followers."""

    publish: Callable[..., Any]
    options: dict[str, Any]


@contextlib.contextmanager
def published_for(delivery: Origin | None) -> Iterator[None]:
    """What is published inside follows this delivery."""
    token = origin.set(delivery)
    try:
        yield
    finally:
        origin.reset(token)


def defer(request: Any, publish: Callable[..., Any], options: dict[str, Any]) -> None:
    """Note followers of a request, to be published when its answer is stored."""
    noted = request.__dict__.setdefault("followers", [])
    signature = publish.__self__  # type: ignore[attr-defined]
    give_ids(signature, f"{request.id}:{len(noted)}")
    # The answer names them already; Celery freezes them again as it publishes.
    with contextlib.suppress(Exception):
        request.children.append(signature.freeze())
    noted.append(Deferred(publish, options))


def give_ids(signature: Any, seed: str) -> None:
    """Give a signature, and those of a group, ids that depend on ``seed`` only."""
    if isinstance(signature, group):
        give_all_ids(signature.tasks, seed)
    options = signature.setdefault("options", {})
    options.setdefault("task_id", str(uuid.uuid5(_NAMESPACE, seed)))


def give_all_ids(signatures: Iterable[Any], seed: str) -> None:
    """The same for several, in their order."""
    for place, each in enumerate(signatures):
        give_ids(each, f"{seed}:{place}")
