"""complete, chat and embed as workers execute them."""

from typing import Any

from modelserver.api import InferenceTask, declare
from modelserver.messaging.running_worker import find_worker
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
