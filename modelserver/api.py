"""The public tasks: complete, chat and embed, as any Celery program uses them.

Declared once and bound twice: to a light client application here, and to the workers'
application in ``tasks``. Names, arguments, checks and routing are the same in both.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

from celery import Celery, Task, states
from celery._state import get_current_worker_task
from celery.local import Proxy
from celery.result import AsyncResult

from modelserver import settings as settings_module
from modelserver.errors import ModelserverError, ModelUnavailableError
from modelserver.messaging.catalogue import Catalogue
from modelserver.messaging.envelope import SERIALIZER, plain
from modelserver.messaging.forks import reset_in_forks
from modelserver.messaging.remote_control import Control
from modelserver.messaging.requests import (
    FROM_START,
    InferenceRequest,
    build,
    check_context,
    plain_arguments,
    with_model,
)
from modelserver.messaging.results import ClientApplication
from modelserver.messaging.sending import (
    BackgroundSender,
    accepted_or_unreachable,
    no_second_wait,
)
from modelserver.messaging.transport import AMQP
from modelserver.messaging.wire import (
    CHAT,
    COMPLETE,
    EMBED,
    CatalogueSource,
    client_settings,
)
from modelserver.parameters import check_priority, check_task_id
from modelserver.settings import Settings
from modelserver.store.batch import (
    ALWAYS,
    DEADLINE,
    DEADLINE_SECONDS,
    RESUBMISSION,
    UNLESS_ANSWERED,
)
from modelserver.tracing import find_tracer, trace_of


class CallWay(Protocol):
    """A way of calls by ``aio`` other than a task for each."""

    #: The application whose calls go this way.
    app: Celery

    async def ask(self, task: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The answer to one call."""


#: The way of the calls in this context, None for a task each.
CALL_WAY: ContextVar[CallWay | None] = ContextVar("modelserver_call_way", default=None)


class InferenceTask(Task):  # type: ignore[misc]
    """A request to a model. Finds what is wrong with it before it is sent."""

    abstract = True
    typing = False
    throws = (ModelserverError,)
    ignore_result = False
    #: Characters of an answer in events and logs: none, unless the fleet shows prompts.
    resultrepr_maxsize = 0
    #: The catalogue of now.
    models: Callable[[], Catalogue]
    settings: Settings

    def __reduce__(self) -> Any:
        if isinstance(self.app, ClientApplication):
            return _task_of, (self.app, self.name)
        return super().__reduce__()

    def apply_async(
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> AsyncResult:
        """Send the request. Options are Celery's, ``deadline`` among the arguments.

        Raises RequestError, UnknownModelError, StoreUnreachableError, StoreFullError,
        and where the fleet file says so for a model that is down,
        ModelUnavailableError.
        """
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        # Inside a worker (a chain's next step) an error must reach the request itself,
        # not the one before it: there it is found when it is executed.
        if get_current_worker_task() is None:
            if "priority" in options:
                options["priority"] = check_priority(options["priority"])
            check_task_id(options.get("task_id"))
            args, kwargs = plain_arguments(self.name, args, kwargs)
            request = self._checked(args, kwargs)
            self._address(request, kwargs, options)
            options.setdefault("serializer", SERIALIZER)
            options.setdefault("retry_policy", {"errback": no_second_wait})
            if options.get("task_id"):
                known = self._mark_resubmission(options)
                if known:
                    return known
        self._add_deadline(kwargs, options)
        if not self.settings.fleet.rules.show_prompts:
            # Whoever reads the message says of it what may be seen.
            options.setdefault("argsrepr", "")
            options.setdefault("kwargsrepr", "")
        with accepted_or_unreachable(self.app), self._traced(options):
            return super().apply_async(args, kwargs, **options)

    def compose(
        self,
        subject: Any,
        kwargs: dict[str, Any],
        priority: int,
        headers: Mapping[str, Any],
    ) -> tuple[str, dict[str, Any]]:
        """The queue and the message of a request that nothing follows.

        ``headers`` has its id and its origin. ``apply_async`` does more where traces
        are on, prompts are shown or results are on another server. Raises as that.
        """
        args, kwargs = plain_arguments(self.name, (subject,), kwargs)
        options = {"headers": {"task": self.name, **headers}}
        self._address(self._checked(args, kwargs), kwargs, options)
        self._add_deadline(kwargs, options)
        options["headers"][RESUBMISSION] = UNLESS_ANSWERED
        message = plain(options["headers"], args, kwargs, priority)
        return str(options.get("queue")), message

    def _traced(self, options: dict[str, Any]) -> AbstractContextManager[None]:
        """A span while the request is sent, where traces are on."""
        tracer = find_tracer(self.settings.is_traced)
        if tracer is None:
            return nullcontext()
        parent = get_current_worker_task()
        options["headers"] = headers = dict(options.get("headers") or {})
        return tracer.submit(
            self.name, headers, trace_of(parent.request) if parent else {}
        )

    async def aio(self, *args: Any, **kwargs: Any) -> Any:
        """The answer, for asyncio: ``await complete.aio("Once upon a time")``.

        Arguments and errors are those of ``delay`` and ``get`` together. If it is
        cancelled, so is the request.
        """
        return await self.apply_aio(args, kwargs)

    async def apply_aio(
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        """The same with Celery's options, such as ``priority``."""
        way = CALL_WAY.get()
        if way is not None and way.app is self.app and not options:
            return await way.ask(self.name, args or (), dict(kwargs or {}))
        sender: BackgroundSender = self.app.modelserver_sender
        sending = sender.send(
            lambda producer: self.apply_async(
                args, kwargs, producer=producer, **options
            )
        )
        try:
            return await (await asyncio.wrap_future(sending))
        except asyncio.CancelledError:
            sending.add_done_callback(sender.revoke)
            raise

    def _mark_resubmission(self, options: dict[str, Any]) -> AsyncResult | None:
        """Have an old error of this id forgotten; the result, if it is an answer.

        What hangs on this request (a chain, a callback) needs its execution.
        """
        alone = not any(options.get(name) for name in ("chain", "link", "chord"))
        task = options["task_id"]
        if not self.settings.fleet.redis.results_url:
            headers = dict(options.get("headers") or {})
            headers[RESUBMISSION] = UNLESS_ANSWERED if alone else ALWAYS
            options["headers"] = headers
            return None
        with accepted_or_unreachable(self.app):
            state = self.app.backend.get_state(task)
            if state == states.SUCCESS and alone:
                return self.AsyncResult(task)
            if state in states.EXCEPTION_STATES:
                self.app.backend.forget(task)
        return None

    def _checked(self, args: Any, kwargs: dict[str, Any]) -> InferenceRequest:
        request = build(self.name, args, kwargs)
        models = self.models()
        model = models.pick(request.kind, request.model)
        entry = models.entry(model)
        request = with_model(request, model)
        check_context(request, entry.context_length if entry else None)
        down = models.down.get(models.queue(model))
        if down and down.then == "fail":
            raise ModelUnavailableError(down.text)
        return request

    def _address(
        self, request: InferenceRequest, kwargs: dict[str, Any], options: dict[str, Any]
    ) -> None:
        """Name the model once: by the queue, unless the caller gives another one."""
        if options.keys().isdisjoint(("queue", "exchange", "routing_key")):
            options["queue"] = self.models().queue(request.model or "")
            if options["queue"] == request.model:
                kwargs.pop("model", None)
                return
        kwargs["model"] = request.model

    def _add_deadline(self, kwargs: dict[str, Any], options: dict[str, Any]) -> None:
        if kwargs.get("deadline_from") == FROM_START:
            return  # The worker counts from the start of the execution.
        kwargs.pop("deadline_from", None)
        seconds = kwargs.get("deadline")
        if seconds is None:
            seconds = self.models().defaults.get("deadline_seconds")
        # Anything but a number stays an argument; the worker refuses it.
        if isinstance(seconds, (int, float)):
            kwargs.pop("deadline", None)
            headers = dict(options.get("headers") or {})
            headers[DEADLINE] = time.time() + seconds
            headers[DEADLINE_SECONDS] = seconds
            options["headers"] = headers


def declare(
    app: Celery,
    settings: Settings,
    run: Callable[..., Any],
    models: CatalogueSource,
) -> tuple[InferenceTask, InferenceTask, InferenceTask]:
    """Bind complete, chat and embed to an application.

    ``run(task, args, kwargs)`` is what a call does where it is executed.
    """

    def bind(name: str, doc: str) -> InferenceTask:
        def body(self: InferenceTask, *args: Any, **kwargs: Any) -> Any:
            return run(self, args, kwargs)

        body.__doc__ = doc
        # Celery makes attributes of the task's class of them.
        attributes: dict[str, Any] = {
            "settings": settings,
            "models": staticmethod(models),
        }
        if settings.fleet.rules.show_prompts:
            attributes["resultrepr_maxsize"] = 1024
        # Not shared: by default Celery adds a task to every application of the process,
        # and this one belongs to one fleet.
        bound: InferenceTask = app.task(
            body, name=name, base=InferenceTask, bind=True, shared=False, **attributes
        )
        return bound

    complete, chat, embed = (bind(name, doc) for name, doc in DOCS.items())
    return complete, chat, embed


COMPLETE_DOC = """Complete a prompt: ``complete.delay("Once upon a time").get()``.

Arguments: ``prompt`` (text); by name ``model``, ``deadline`` (seconds from submission,
or from the start of its execution with ``deadline_from="start"``),
``raw`` (the engine's response body instead of the text), any sampling parameter of
OpenAI, SGLang or vLLM, and ``extra_body`` for what only your engine knows. The prompt
may be a list of token ids. The result is a text, or a list of texts with ``n`` above 1.
"""
CHAT_DOC = """Answer messages: ``chat.delay([{"role": "user", "content": "hi"}])``.

Arguments: ``messages`` (list of objects with role and content), the others as for
``complete``, ``response_format`` among them. The result is the answer's text.
"""
EMBED_DOC = """Embed a text: ``embed.delay("text").get()`` is a list of floats.

Arguments: ``input`` (a text or a list of texts), by name ``model``, ``deadline``,
``raw``. A list of texts gives a list of vectors in the same order.
"""

#: What each task is, for whoever asks for help.
DOCS = {COMPLETE: COMPLETE_DOC, CHAT: CHAT_DOC, EMBED: EMBED_DOC}


def _task_of(app: Celery, name: str) -> InferenceTask:
    """A task that was pickled."""
    task: InferenceTask = app.tasks[name]
    return task


def _call_from_a_client(task: InferenceTask, args: Any, kwargs: Any) -> Any:
    """A plain call in a client sends the request and waits for its answer."""
    return task.apply_async(args, kwargs).get()


def client(settings: Settings | None = None) -> Celery:
    """A Celery application that sends requests, configured when it is first used."""
    settings = settings or settings_module.load()
    app = ClientApplication(
        "modelserver", amqp=AMQP, control=Control, set_as_current=False
    )
    models = CatalogueSource(settings)
    app.add_defaults(lambda: client_settings(settings, models))
    app.modelserver_tasks = declare(app, settings, _call_from_a_client, models)
    app.modelserver_sender = BackgroundSender(app)
    app.modelserver_models = models
    reset_in_forks(app)
    return app


#: The application of this process's fleet, once there is one.
_FOUND: dict[str, Celery] = {}


def default_client() -> Celery:
    """The application of this process's fleet, the same from its first use on.

    Raises ConfigurationError, and StoreUnreachableError where it is not known which
    server is the fleet's. What was missing may be set then: the next call looks again.
    """
    if "app" not in _FOUND:
        app = client()
        app.found_by = default_client
        # Celery reads its settings late, and where it fails a task stays half bound.
        str(app.conf.broker_url)
        _FOUND.setdefault("app", app)  # Another thread may have been quicker.
    return _FOUND["app"]


def default_task(name: str) -> InferenceTask:
    """A task of that application, which is looked for at each use until it is there."""
    task: InferenceTask = Proxy(
        lambda: default_client().tasks[name], name=name, __doc__=DOCS[name]
    )
    return task
