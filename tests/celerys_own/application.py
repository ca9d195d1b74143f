"""The application that Celery's tests get in place of Celery's own.

The plugin imports this after it has named the control queue as the tests do.
"""

import asyncio
import time
from typing import Any

from celery import Task
from celery.loaders.app import AppLoader

import celeryconfig
from modelserver import settings
from modelserver.messaging.transport import AMQP
from modelserver.messaging.wire import CatalogueSource
from workers import bridge, celery_hooks


class Loader(AppLoader):
    """Takes our result backend for redis://, the only URL that the tests know."""

    override_backends = {"redis": "modelserver.messaging.backend:Backend"}  # noqa: RUF012


class LoopTask(Task):
    """A task that runs on the loop, as requests do."""

    on_loop = True
    Request = "workers.celery_hooks:WorkerRequest"


class App(celery_hooks.WorkerApplication):
    """An application with everything that a worker of ours has, but no models."""

    loader_cls = f"{__name__}:{Loader.__name__}"
    task_cls = LoopTask

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, amqp=AMQP, events=celery_hooks.ThinnedEvents, **kwargs)
        self.modelserver_settings = settings.load()
        self.modelserver_models = CatalogueSource(self.modelserver_settings)
        # Before the tests' own settings, which go first.
        self.add_defaults(
            celeryconfig.configuration(
                self.modelserver_settings, self.modelserver_models
            )
        )
        celery_hooks.install(self)


def sleep(seconds: float) -> None:
    """``time.sleep`` for tasks: on the loop it keeps nobody else waiting."""
    if bridge.inside():
        bridge.wait(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
