"""complete, chat, embed and the rows of runs, as workers execute them."""

from typing import Any

from modelserver.api import InferenceTask, declare
from modelserver.messaging.running_worker import find_worker
from modelserver.messaging.wire import ROWS
from tasks.app import app


def _execute(task: InferenceTask, args: Any, kwargs: Any) -> Any:
    """On a worker's loop: execute. Anywhere else: send, and wait for the answer."""
    worker = find_worker(app)
    if worker is None:
        return task.apply_async(args, kwargs).get()
    return worker.execute(task.name, args, kwargs, task.request)


complete, chat, embed = declare(
    app, app.modelserver_settings, _execute, app.modelserver_models
)
for request in (complete, chat, embed):
    request.on_loop = True
    request.Request = "workers.celery_hooks:WorkerRequest"


@app.task(  # type: ignore[untyped-decorator]
    name=ROWS, bind=True, ignore_result=True, shared=False, typing=False
)
def rows(self: Any, **bundle: Any) -> None:
    """Answer many rows of a run. Only workers call it."""
    worker = find_worker(app)
    if worker is None:
        raise RuntimeError(f"{ROWS} is sent by a run's lane, and run by workers")
    worker.execute_rows(bundle, self.request)


rows.on_loop = True
rows.Request = "workers.celery_hooks:WorkerRequest"
