"""complete, chat and embed as workers execute them."""

from typing import Any

from modelserver.api import InferenceTask, declare
from tasks.app import app
from workers import bridge


def _execute(task: InferenceTask, args: Any, kwargs: Any) -> Any:
    """Inside a worker's pool: execute. Anywhere else: send, and wait."""
    if not bridge.inside():
        return task.apply_async(args, kwargs).get()
    return task.backend.sink.execute(task.name, args, kwargs, task.request)


complete, chat, embed = declare(
    app, app.modelserver_settings, _execute, app.modelserver_models
)
for request in (complete, chat, embed):
    request.on_loop = True
    request.Request = "workers.request:Request"
