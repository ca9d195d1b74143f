"""What tasks, results and publishing may ask of the worker that they run in.

Celery's code is synchronous, and in a worker it runs on the loop: whatever would block
there goes through this.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from celery import Celery

from modelserver.messaging.followers import Origin
from modelserver.store.batch import Stored, StoreResult

T = TypeVar("T")


class RunningWorker(Protocol):
    """A worker's loop, as the code of a task sees it that runs on the loop."""

    def is_on_loop(self) -> bool:
        """Whether the caller's thread is the loop's, in a task or not."""

    def can_wait(self) -> bool:
        """Whether the caller is a task on the loop, which may call what is below."""

    def execute(self, task: str, args: Any, kwargs: Any, context: Any) -> Any:
        """The answer to a request; ``context`` is Celery's request."""

    def execute_rows(self, bundle: Any, context: Any) -> None:
        """Answer the rows of a bundle; ``context`` is Celery's request."""

    def store(self, result: StoreResult) -> Stored:
        """Store a result and wait until it is written; says what became of it."""

    def store_from_thread(self, result: StoreResult) -> Stored:
        """The same for a task in one of the worker's threads."""

    def run_in_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking function in a thread, as the same task; its result."""

    def origin(self, tag: str, task: str) -> Origin | None:
        """The delivery of a task that runs here, for what follows it. Any thread."""


def set_worker(app: Celery, worker: RunningWorker | None) -> None:
    """Say which worker this application runs in; None once it has ended."""
    app.modelserver_worker = worker


def find_worker_of_thread(app: Celery) -> RunningWorker | None:
    """The worker that the caller's thread belongs to; None outside of workers."""
    worker: RunningWorker | None = getattr(app, "modelserver_worker", None)
    return worker


def find_worker(app: Celery) -> RunningWorker | None:
    """The worker on whose loop the caller runs; None where the caller may block."""
    worker: RunningWorker | None = getattr(app, "modelserver_worker", None)
    return worker if worker is not None and worker.can_wait() else None
