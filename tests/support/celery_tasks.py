"""Tasks of a user's own beside the requests, for tests; a worker includes them.

Those named ``loop...`` run on the loop as requests do, all others in threads.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from celery import Task
from celery.exceptions import Reject

from tasks.app import app

ON_LOOP = {"on_loop": True, "Request": "workers.celery_hooks:WorkerRequest"}


def reject_once(task: Task) -> str:
    """Give the message back unless it was delivered before."""
    if not task.request.delivery_info["redelivered"]:
        raise Reject("not now", requeue=True)
    return "delivered again"


def eta_of(task: Task) -> str | None:
    """The ETA that the task sees."""
    eta: str | None = task.request.eta
    return eta


def parent_of(task: Task, *_: Any) -> str | None:
    """The task that sent this one."""
    parent: str | None = task.request.parent_id
    return parent


def leave() -> None:
    """What no task should do."""
    sys.exit(3)


for prefix, options in (("", {}), ("loop_", ON_LOOP)):
    app.task(reject_once, name=f"{prefix}reject_once", bind=True, **options)
    app.task(eta_of, name=f"{prefix}eta_of", bind=True, **options)
    app.task(parent_of, name=f"{prefix}parent_of", bind=True, **options)
    app.task(leave, name=f"{prefix}leave", **options)


@app.task(name="die")  # type: ignore[untyped-decorator]
def die() -> None:
    """What no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="long_text")  # type: ignore[untyped-decorator]
def long_text(size: int) -> str:
    """A text of so many characters."""
    return "x" * size


app.task(long_text.run, name="loop_long_text", **ON_LOOP)


@app.task(name="echo")  # type: ignore[untyped-decorator]
def echo(value: Any) -> Any:
    """The value."""
    return value


@app.task(name="read")  # type: ignore[untyped-decorator]
def read(path: str) -> str:
    """What is written into a pipe; waits for it in a thread."""
    return Path(path).read_text()
