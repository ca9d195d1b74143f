"""What takes the place of Celery's own in a worker, and the hooks into its startup.

The application, requests and task events are Celery's, at less cost for each request.
``install`` adds subscriptions to models, and leaves out what a worker need not do.
"""

import logging
import time
from collections import OrderedDict
from datetime import datetime
from typing import Any

from celery import Celery, bootsteps, signals
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from celery.worker.state import maybe_shutdown

from modelserver.logs import JsonLines
from modelserver.messaging.envelope import shown
from modelserver.messaging.inheritance import inherit
from modelserver.messaging.wire import CONTROL_QUEUE, KINDS
from modelserver.store.server.away_log import AwayLog
from modelserver.tracing import start_exporting

logger = get_logger(__name__)

#: How often collected task events are published, in one message, in seconds.
EVENT_FLUSH_SECONDS = 0.25
#: Task events that may collect until they are published.
MOST_BUFFERED_EVENTS = 10_000
#: Events that end a task; after one of them its events are no longer followed.
FINAL_EVENTS = frozenset(
    {"task-succeeded", "task-failed", "task-rejected", "task-revoked", "task-retried"}
)
#: Tasks whose events are followed at the same time; the oldest gives way.
MOST_FOLLOWED_TASKS = 10_000


class WorkerApplication(Celery):  # type: ignore[misc]
    """The application of workers."""

    def now(self) -> datetime:
        """The time in the application's zone, made aware of it once and not twice."""
        return datetime.now(self.timezone)


class WorkerRequest(Request):  # type: ignore[misc]
    """Celery's request; decodes its body once, makes no event that is left out."""

    @property
    def body(self) -> Any:
        """Arguments, keyword arguments and Celery's own part."""
        return self._payload

    @property
    def content_type(self) -> None:
        """None tells the tracer that the body is decoded."""
        return None

    def send_event(self, type: str, **fields: Any) -> None:
        """Celery's own, for the events that are wanted."""
        thinning = getattr(self._eventer, "thinning", None)
        if thinning is None or thinning.wants(type, self.id):
            super().send_event(type, **fields)

    @property
    def argsrepr(self) -> str:
        """The arguments for events; a client leaves them to us."""
        return self._argsrepr or self._shown()[0]

    @property
    def kwargsrepr(self) -> str:
        """The keyword arguments for events."""
        return self._kwargsrepr or self._shown()[1]

    def _shown(self) -> tuple[str, str]:
        if self._type not in KINDS:
            return "", ""
        queue = self.delivery_info["routing_key"]
        return shown(self._type, self._args, {"model": queue, **self._kwargs})


class WorkerConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer; what it cannot digest it leaves to the intake.

    Celery itself would log the message and drop it without an answer.
    """

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes, unless the worker is to end meanwhile."""
        away_log = AwayLog(logger, "Celery's own connection")
        connection = away_log.connect(conn, between=maybe_shutdown)
        self.first_connection_attempt = False
        return connection

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Raise InvalidTaskError."""
        raise InvalidTaskError("it is no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Raise NotRegistered."""
        raise NotRegistered(message.headers.get("task"))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Raise it."""
        raise exc

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Raise it."""
        raise exc


class EventThinning:
    """Lets a number of tasks a second pass, each with all of its events.

    At a thousand requests a second nobody reads them all. Failures always pass, and so
    do events that are not about a task.
    """

    def __init__(self, tasks_per_second: float) -> None:
        self._tasks_per_second = tasks_per_second
        self._followed: OrderedDict[str, None] = OrderedDict()
        self._second = 0
        self._received = 0

    def wants(self, type: str, task: str) -> bool:
        """Whether an event of a task that was received passes."""
        return task in self._followed or type == "task-failed"

    def passes(self, type: str, task: str | None) -> bool:
        """Whether this event is sent; decides about a task as it is received."""
        if task is None or not type.startswith("task-"):
            return True
        if type == "task-received" and self._may_follow_another():
            self._followed[task] = None
            if len(self._followed) > MOST_FOLLOWED_TASKS:
                self._followed.popitem(last=False)
        wanted = self.wants(type, task)
        if type in FINAL_EVENTS:
            self._followed.pop(task, None)
        return wanted

    def _may_follow_another(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._received = second, 0
        self._received += 1
        return self._received <= self._tasks_per_second


class ThinnedDispatcher(EventDispatcher):  # type: ignore[misc]
    """Celery's dispatcher, thinned as the fleet file says.

    A class and not an attribute: Celery takes ``send`` from it when it starts.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rules = self.app.modelserver_settings.fleet.rules
        self.thinning = EventThinning(rules.events_per_second)

    def send(self, type: str, **fields: Any) -> Any:
        """Send the event if it passes."""
        if self.thinning.passes(type, fields.get("uuid")):
            return super().send(type, **fields)
        return None


class ThinnedEvents(Events):  # type: ignore[misc]
    """Celery's events with the dispatcher above."""

    dispatcher_cls = ThinnedDispatcher


class ModelSubscriptions(bootsteps.StartStopStep):  # type: ignore[misc]
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
        # The hub runs what it is given in any order.
        service.follower.on_models = lambda: c.hub.call_soon(self._subscribe, c)
        self._subscribe(c)

    def stop(self, c: Any) -> None:
        """Change no subscription any more; the consumer set is about to go."""
        c.pool.service.follower.on_models = lambda: None

    def _subscribe(self, c: Any) -> None:
        """Consume from the queues of what can be served now, and of nothing else."""
        if not c.task_consumer:
            return
        models = c.pool.service.follower.models
        mine = {queue.name for queue in c.task_consumer.queues} - {CONTROL_QUEUE}
        for model in sorted(models - mine):
            c.add_task_queue(model)
        for model in sorted((mine & c.pool.service.follower.known) - models):
            c.cancel_task_queue(model)


class EventPublisher(bootsteps.StartStopStep):  # type: ignore[misc]
    """Publishes task events in batches from the main thread."""

    requires = ("celery.worker.consumer.events:Events", ModelSubscriptions)

    def start(self, c: Any) -> None:
        """Flush by a timer and not with a request's event."""
        dispatcher = c.event_dispatcher
        dispatcher.buffer_limit = MOST_BUFFERED_EVENTS
        dispatcher.on_send_buffered = None
        self._timer = c.timer.call_repeatedly(EVENT_FLUSH_SECONDS, dispatcher.flush)

    def stop(self, c: Any) -> None:
        """Publish what is left."""
        self._timer.cancel()
        c.event_dispatcher.flush()


def install(app: Celery) -> None:
    """Add the hooks to an application's workers."""
    app.steps["consumer"].update({ModelSubscriptions, EventPublisher})
    signals.worker_init.connect(_leave_out_gossip, weak=False)
    signals.after_setup_logger.connect(_quieten_logs, weak=False)
    if app.modelserver_settings.json_logs:
        signals.after_setup_logger.connect(_log_json, weak=False)
        signals.after_setup_task_logger.connect(_log_json, weak=False)
    if app.modelserver_settings.is_traced:
        signals.worker_init.connect(_export_traces, weak=False)
    signals.task_received.connect(_forget_eta, weak=False)
    signals.before_task_publish.connect(_inherit, weak=False)


def _leave_out_gossip(sender: Any, **_: Any) -> None:
    # With many hosts these cost a message each way between all pairs, for nothing here.
    sender.options.update(without_gossip=True, without_mingle=True)


def _forget_eta(request: Any, **_: Any) -> None:
    # The intake hands over what is due. Celery would set it aside once more; the task
    # still sees its ETA.
    request._eta = None


def _inherit(headers: Any, properties: Any, **_: Any) -> None:
    inherit(headers, properties)


def _quieten_logs(**_: Any) -> None:
    # Two lines for each request, with its answer: changes of state are logged, not
    # requests, and answers stay out of logs.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    # A traceback for each request that goes back to its queue when its engine dies.
    logging.getLogger("celery.app.trace").setLevel(logging.ERROR)


def _export_traces(**_: Any) -> None:
    start_exporting("modelserver-worker")


def _log_json(logger: logging.Logger, **_: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(JsonLines())
