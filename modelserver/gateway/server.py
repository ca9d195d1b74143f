"""The HTTP server: OpenAI's paths in front of the fleet's queues.

Nothing of a prompt is logged. A client that goes away ends its requests.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from celery import Celery
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from modelserver.gateway.admission import Admission, LoadReader
from modelserver.gateway.batch_paths import BatchPathsHandler
from modelserver.gateway.bodies import PATHS, Asked, join, read_body
from modelserver.gateway.calling import Calls, Told, identified
from modelserver.gateway.connection import answer_expectation
from modelserver.gateway.crowd import Crowd, allow_connections
from modelserver.gateway.direct import DirectWay, can_go_directly
from modelserver.gateway.doorkeeper import Doorkeeper, Visitor
from modelserver.gateway.events import KEEP_ALIVE, find_response, open_events
from modelserver.gateway.faults import Fault, Refused, fault_of
from modelserver.gateway.headers import Caller, find_caller, find_patience
from modelserver.gateway.inbox import Inbox
from modelserver.gateway.openapi import document
from modelserver.gateway.patience import end, patiently
from modelserver.gateway.reading import (
    IS_SHORT,
    LONG_BODIES,
    MOST_BODY_BYTES,
    TIDY_PATHS,
    look_through,
    read_json_body,
)
from modelserver.gateway.response_paths import ResponsePathsHandler
from modelserver.gateway.writing import error_response, json_response
from modelserver.messaging.catalogue import Catalogue
from modelserver.messaging.wire import EMBED
from modelserver.operations.prometheus import FleetCollector
from modelserver.settings import Settings
from modelserver.store import Keys
from modelserver.store.server.connections import open_async
from modelserver.store.server.line import read_error
from modelserver.tracing import find_tracer

#: A connection that asks for nothing is closed after so many seconds.
IDLE_SECONDS = 75.0
#: A stream that is silent for so many seconds gets a line that clients skip.
SILENT_SECONDS = 15.0

#: What is told without a key.
OPEN_PATHS = frozenset({"/health"})

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """One process of the gateway; ``is_local``: only this machine can reach it."""

    def __init__(self, settings: Settings, app: Celery, is_local: bool) -> None:
        self._app = app
        store_keys = Keys(settings.fleet.redis.prefix)
        self._client = open_async(
            settings.redis_url, settings.fleet.redis.max_connections, queues=True
        )
        self._doorkeeper = Doorkeeper(
            self._client, store_keys, is_local, int(app.conf.result_expires)
        )
        self._inbox = Inbox(self._client, store_keys)
        self._long_bodies = ThreadPoolExecutor(1, "long-bodies")
        self._direct = None
        if can_go_directly(settings):
            self._direct = DirectWay(app, self._client, store_keys, self._long_bodies)
        self._calls = Calls(app, self._inbox, self._direct)
        self.crowd = Crowd(allow_connections())
        self._batches = BatchPathsHandler(settings, app)
        self._began = int(time.time())
        #: What goes on after its client has gone away.
        self._left: set[asyncio.Task[Any]] = set()
        self._hedges = settings.fleet.gateway.hedge
        self._registry = CollectorRegistry()
        self._registry.register(FleetCollector(settings))
        self._responses = ResponsePathsHandler(settings, self._registry)
        loads = LoadReader(settings, app)
        self._admission = Admission(loads, loads.find_default, self._registry)
        self._tracer = find_tracer(settings.is_traced)

    def application(self) -> web.Application:
        """The server's application; its connections open as it starts."""
        app = web.Application(
            middlewares=[TIDY_PATHS, self._answer_in_form],
            client_max_size=MOST_BODY_BYTES,
        )
        app[LONG_BODIES] = self._long_bodies
        routes = [
            *(web.post(path, self._infer) for path in PATHS),
            *self._batches.routes(),
            *self._responses.routes(),
            web.get("/v1/models", self._models),
            web.get("/v1/models/{model:.+}", self._model),
            web.get("/openapi.json", self._document),
            web.get("/health", self._health),
            web.get("/metrics", self._metrics),
        ]
        for each in routes:
            each.kwargs["expect_handler"] = answer_expectation
        app.add_routes(routes)
        app.cleanup_ctx.append(self._open)
        return app

    async def _open(self, app: web.Application) -> Any:
        await self._inbox.start()
        if self._direct is not None:
            await self._direct.start()
        each = (self._batches.look_after(), self._responses.look_after())
        looking = [asyncio.create_task(one) for one in each]
        yield
        for task in looking:
            task.cancel()
        await self._inbox.stop()
        if self._direct is not None:
            await self._direct.stop()
        await self._client.aclose()
        self._long_bodies.shutdown(wait=False, cancel_futures=True)

    # Every answer.

    @web.middleware
    async def _answer_in_form(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        self.crowd.at_work.add(request.protocol)
        try:
            if self._tracer is None:
                return await self._answer(request, handler)
            with self._tracer.serve(request.headers, _route(request)):
                return await self._answer(request, handler)
        finally:
            self.crowd.at_work.discard(request.protocol)

    async def _answer(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Errors as OpenAI's objects; an id for every answer."""
        request["id"] = f"req_{uuid.uuid4().hex}"
        try:
            if request.path not in OPEN_PATHS:
                told = request.headers.get("Authorization", "")
                request["visitor"] = await patiently(
                    lambda: self._doorkeeper.admit(told)
                )
            response = await handler(request)
        except web.HTTPException as error:
            response = error_response(_http_fault(request, error))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except (web.RequestPayloadError, HttpProcessingError) as error:
            # The text of aiohttp's own errors has a head for logs.
            why = getattr(error, "message", "") or str(error)
            text = f"the body cannot be read: {why}"
            response = error_response(Fault(400, text, code="invalid_body"))
        except Exception as error:
            response = error_response(_fault(request, error))
        if not response.prepared:
            response.headers["x-request-id"] = request["id"]
        return response

    # Models, health, metrics.

    async def _catalogue(self) -> Catalogue:
        # It may look into the store, which blocks.
        return await asyncio.to_thread(self._app.modelserver_models)

    async def _models(self, request: web.Request) -> web.Response:
        models = (await self._catalogue()).models
        may_ask = request["visitor"].may_ask
        data = [self._described(each) for each in models if may_ask(each.name)]
        return json_response({"object": "list", "data": data})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"].rstrip("/")
        entry = (await self._catalogue()).entry(name)
        if entry is None or not request["visitor"].may_ask(name):
            text = f'the fleet has no model "{name}"; /v1/models lists those there are'
            raise Refused(Fault(404, text, param="model", code="model_not_found"))
        return json_response(self._described(entry))

    def _described(self, entry: Any) -> dict[str, Any]:
        return {
            "id": entry.name,
            "object": "model",
            "created": self._began,
            "owned_by": "modelserver",
            "kind": entry.kind.value,
            "max_model_len": entry.context_length,
        }

    async def _document(self, request: web.Request) -> web.Response:
        return json_response(document((await self._catalogue()).models))

    async def _health(self, request: web.Request) -> web.Response:
        models = await self._catalogue()
        down = sorted(models.down)
        return json_response({"status": "ok", "models_down": down})

    async def _metrics(self, request: web.Request) -> web.Response:
        page = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})

    # Inference.

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        body = request["body"] = await read_json_body(request)
        body = await self._responses.with_past(request, body)
        if body is not request["body"]:
            request[IS_SHORT] = False
        asked = await look_through(request, lambda: read_body(request.path, body))
        visitor = await self._doorkeeper.count(request["visitor"], asked.model, body)
        request["visitor"] = visitor
        caller = find_caller(request, visitor.key, self._hedges)
        # A stream is kept open meanwhile: then a client's timeout does not count.
        patience = None if asked.stream else find_patience(request)
        await self._admission.check(asked, caller, patience)
        asked = await look_through(request, partial(identified, asked, caller))
        try:
            if asked.stream:
                return await self._stream(request, asked, caller)
            answers = await self._answers(visitor, asked, caller)
        except (ConnectionError, asyncio.CancelledError):
            if caller.idempotency_key and visitor.key:
                # It goes on, and counts even if nobody comes for its answer.
                left = asyncio.create_task(self._answers(visitor, asked, caller))
                self._left.add(left)
                left.add_done_callback(self._left.discard)
                left.add_done_callback(read_error)
            raise
        engines = [str(answer.pop("engine", "")) for answer in answers]
        headers = {"x-modelserver-engine": ",".join(dict.fromkeys(engines))}
        headers |= visitor.headers
        for answer in answers:
            answer.pop("seconds", None)
            if fallback := answer.pop("fallback_for", None):
                headers["x-modelserver-fallback-for"] = str(fallback)
        if asked.calls[0].task == EMBED:
            # Many numbers take a while to write: not on the loop.
            return await asyncio.to_thread(
                lambda: json_response(join(asked, answers), headers)
            )
        answer = join(asked, answers)
        if asked.is_response:
            await self._responses.keep(request, asked, answer)
        return json_response(answer, headers)

    async def _answers(
        self, visitor: Visitor, asked: Asked, caller: Caller
    ) -> list[dict[str, Any]]:
        answers = await self._calls.answer(asked, caller)
        usages = {place: each.get("usage") or {} for place, each in enumerate(answers)}
        await self._doorkeeper.note(visitor, asked, usages)
        return answers

    async def _stream(
        self, request: web.Request, asked: Asked, caller: Caller
    ) -> web.StreamResponse:
        news = self._calls.stream(asked, caller)
        events, is_whole = open_events(asked), False
        coming = asyncio.ensure_future(anext(news, None))
        try:
            await asyncio.wait({coming}, timeout=SILENT_SECONDS)
            if coming.done():
                coming.result()  # What fails by now has a status of its own.
            response = await _open_stream(request)
            try:
                while (told := await _kept_open(coming, response)) is not None:
                    found = b"".join(events.of(told))
                    # Before its client knows of it, who may go on from it at once.
                    if answer := find_response(told):
                        await self._responses.keep(request, asked, answer)
                    if found:
                        await response.write(found)
                    coming = asyncio.ensure_future(anext(news, None))
                is_whole = True
                for event in events.end():
                    await response.write(event)
            except (ConnectionError, asyncio.CancelledError):
                raise
            except Exception as error:
                await response.write(events.failed(_fault(request, error)))
            await response.write_eof()
            return response
        finally:
            await end([coming])
            await news.aclose()
            # What is counted once is counted whole.
            if is_whole or not caller.idempotency_key:
                await self._doorkeeper.note(request["visitor"], asked, events.usages)


async def _open_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            "x-request-id": request["id"],
            **request["visitor"].headers,
        }
    )
    await response.prepare(request)
    return response


async def _kept_open(
    coming: "asyncio.Future[Told | None]", response: web.StreamResponse
) -> Told | None:
    """What comes next of a stream, None at its end; kept open meanwhile."""
    while not coming.done():
        await asyncio.wait({coming}, timeout=SILENT_SECONDS)
        if not coming.done():
            await response.write(KEEP_ALIVE)
    return coming.result()


def _route(request: web.Request) -> str:
    """What is asked, without the ids of files and batches."""
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical if resource else 'nothing'}"


def _fault(request: web.Request, error: Exception) -> Fault:
    """What the client is told of an error that is handled; ours are logged."""
    fault = fault_of(error, request.get("body"))
    if fault.status == 500:
        what = (request["id"], request.method, request.path)
        logger.exception("request=%s %s %s failed", *what)
    return fault


def _http_fault(request: web.Request, error: web.HTTPException) -> Fault:
    """What aiohttp itself refuses, in OpenAI's form."""
    if error.status == 404:
        text = f"there is no {request.method} {request.rel_url.raw_path} here"
        meant = "/v1" + request.path.rpartition("/v1")[2]
        if meant in PATHS:
            text += f"; did you mean {meant}?"
        return Fault(404, text, code="unknown_url")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{request.path} does not take {request.method}, but {allowed}"
        headers = {"Allow": allowed}
        return Fault(405, text, code="method_not_allowed", headers=headers)
    if error.status == 413:
        text = f"the body is larger than {MOST_BODY_BYTES:,} bytes; send less at once"
        return Fault(413, text, code="request_too_large")
    return Fault(error.status, error.reason)
