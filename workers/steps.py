"""Hooks into Celery's worker: subscriptions, events, and what it need not do."""

import logging
from typing import Any

from celery import Celery, bootsteps, signals

from modelserver.messaging.wire import CONTROL_QUEUE

#: Task events are published so often, in one message each time, in seconds.
EVENTS_SECONDS = 0.25
#: Task events that may collect in between.
EVENTS_MOST = 10_000


class Subscriptions(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumes from a model's queue exactly while this host can serve the model.

    Through Celery's own consumer set, so that ``celery inspect active_queues``, Flower
    and the remote commands add_consumer and cancel_consumer tell and mean the truth.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        """Attach the intake to this connection's channel, once its loop runs.

        Before, Celery does not know yet what to do with a message.
        """
        service = c.pool.service
        c.hub.call_soon(service.intake.attach, c.task_consumer.channel)
        # Celery leaves acknowledgements to its main loop, which a warm shutdown has
        # ended: they would come after what is held was given back. The intake takes
        # them on any thread.
        c.call_soon_ack = lambda function, *args, **kwargs: function(*args, **kwargs)
        service.on_models = lambda models: c.hub.call_soon(self._follow, c, models)
        self._follow(c, service.models())

    def stop(self, c: Any) -> None:
        """Follow no longer; the consumer set is about to go."""
        c.pool.service.on_models = lambda models: None

    def _follow(self, c: Any, models: frozenset[str]) -> None:
        if not c.task_consumer:
            return
        mine = {queue.name for queue in c.task_consumer.queues} - {CONTROL_QUEUE}
        for model in sorted(models - mine):
            c.add_task_queue(model)
        for model in sorted((mine & c.pool.service.known) - models):
            c.cancel_task_queue(model)


class PublishEvents(bootsteps.StartStopStep):  # type: ignore[misc]
    """Publishes task events in batches from the main thread."""

    requires = ("celery.worker.consumer.events:Events", Subscriptions)

    def start(self, c: Any) -> None:
        """Take the flush out of the requests' way."""
        dispatcher = c.event_dispatcher
        dispatcher.buffer_limit = EVENTS_MOST
        dispatcher.on_send_buffered = None
        self._timer = c.timer.call_repeatedly(EVENTS_SECONDS, dispatcher.flush)

    def stop(self, c: Any) -> None:
        """Publish what is left."""
        self._timer.cancel()
        c.event_dispatcher.flush()


def install(app: Celery) -> None:
    """Add the hooks to an application's workers."""
    app.steps["consumer"].update({Subscriptions, PublishEvents})
    signals.worker_init.connect(_leave_out, weak=False)
    signals.after_setup_logger.connect(_quieten, weak=False)
    signals.task_received.connect(_due, weak=False)


def _leave_out(sender: Any, **_: Any) -> None:
    # With many hosts these cost a message each way between all pairs, for nothing here.
    sender.options.update(without_gossip=True, without_mingle=True)


def _due(request: Any, **_: Any) -> None:
    # The intake hands over what is due. Celery would note it for later once more; the
    # task still sees its ETA.
    request._eta = None


def _quieten(**_: Any) -> None:
    # Two lines for each request, with its answer: changes of state are logged, not
    # requests, and answers stay out of logs.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    # A traceback for each request that goes back to its queue when its engine dies.
    logging.getLogger("celery.app.trace").setLevel(logging.ERROR)
