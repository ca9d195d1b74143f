"""The HTTP face of the engine: the routes, the counts and where faults strike."""

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.engine import openai_api
from tests.engine.faults import Fault, FaultBoard, FaultError, fault_from_json, spoil
from tests.engine.openai_api import Ask, BadRequestError
from tests.engine.pace import Load, Pace
from tests.engine.responses import (
    JSON_HEADERS,
    drip,
    error_response,
    json_response,
    reset,
)
from tests.engine.streaming import Streaming

#: Prompts whose executions are remembered; the oldest are forgotten.
PROMPTS_REMEMBERED = 100_000

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Model:
    """What the engine serves, and the process that serves it."""

    name: str
    context_length: int = 32768
    max_running: int = 64
    child_pid: int | None = None
    #: Whether it tells how it copes at /metrics.
    metrics: bool = True


@dataclass(slots=True)
class Counts:
    """Generations and embeddings since the start, by how they ended.

    received = refused + aborted + completed + in flight. An answer that a fault
    spoiled counts as completed: the engine did the work.
    """

    received: int = 0
    refused: int = 0
    aborted: int = 0
    completed: int = 0
    prompt_tokens: int = 0
    executed: dict[str, int] = field(default_factory=dict)

    def ran(self, ask: Ask) -> None:
        self.prompt_tokens += ask.job.prompt_tokens
        for text in ask.texts:
            self.executed[text] = self.executed.get(text, 0) + 1
        while len(self.executed) > PROMPTS_REMEMBERED:
            del self.executed[next(iter(self.executed))]


class App:
    """Answers every request of the process."""

    def __init__(
        self, model: Model, faults: FaultBoard, pace: Pace, key: str = ""
    ) -> None:
        self.draining = False
        self._bearer = f"Bearer {key}" if key else ""
        #: Set while nothing is in flight.
        self.idle = asyncio.Event()
        self.idle.set()
        self._model = model
        self._faults = faults
        self._pace = pace
        self._counts = Counts()
        self._serial = 0
        self._trace = ""
        self._in_flight: dict[int, str] = {}
        #: By request, for those whose client is gone: they have as good as ended.
        self._clients: dict[int, asyncio.Transport | None] = {}
        self._most_in_flight = 0
        self._kinds = {
            "/v1/completions": "completion",
            "/v1/chat/completions": "chat",
            "/v1/embeddings": "embedding",
        }
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/health_generate"): self._health,
            ("GET", "/ready"): self._ready,
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/loads"): self._loads,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/abort_request"): self._abort,
            ("GET", "/stats"): self._stats,
            ("GET", "/fault"): self._show_fault,
            ("POST", "/fault"): self._put_fault,
            ("DELETE", "/fault"): self._clear_fault,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        told = request.headers.get("Authorization")
        if self._bearer not in ("", told) and request.path.startswith("/v1/"):
            return error_response(401, "no or another key", "AuthenticationError")
        kind = self._kinds.get(request.path)
        if kind and request.method == "POST":
            return await self._generation(kind, request)
        handler = self._routes.get((request.method, request.path))
        if request.path == "/metrics" and not self._model.metrics:
            handler = None
        if handler is None:
            return error_response(
                404, f"no {request.method} {request.path}", "NotFoundError"
            )
        return await handler(request)

    async def _generation(
        self, kind: str, request: web.BaseRequest
    ) -> web.StreamResponse:
        self._serial += 1
        key = self._serial
        self._counts.received += 1
        self._trace = request.headers.get("traceparent", "")
        self._in_flight[key] = ""
        self._clients[key] = request.transport
        self._most_in_flight = max(self._most_in_flight, self._living())
        self.idle.clear()
        try:
            return await self._serve(key, kind, request)
        except asyncio.CancelledError:
            # The client went away, and its generation with it.
            self._counts.aborted += 1
            raise
        finally:
            del self._in_flight[key]
            del self._clients[key]
            if not self._in_flight:
                self.idle.set()

    def _living(self) -> int:
        """The requests whose clients are there."""
        return sum(
            each is not None and not each.is_closing()
            for each in self._clients.values()
        )

    async def _serve(
        self, key: int, kind: str, request: web.BaseRequest
    ) -> web.StreamResponse:
        fault = self._faults.fault if self._faults.strikes() else Fault()
        if fault.marked and fault.marked.encode() not in await request.read():
            fault = Fault()
        refusal = self._refusal(fault, request)
        if refusal:
            self._counts.refused += 1
            return refusal
        raw = await request.read()
        try:
            ask = openai_api.parse(kind, raw, self._model.context_length)
        except BadRequestError as error:
            self._counts.refused += 1
            return error_response(400, str(error))
        if fault.hang and not fault.hangs_whole:
            await self._faults.changed()
        rid = self._in_flight[key] = ask.rid or uuid.uuid4().hex
        if ask.stream:
            return await self._stream(key, ask, rid, fault, request)
        tokens = await self._pace.run(key, ask.job)
        if fault.poison and any(fault.poison in text for text in ask.texts):
            os._exit(1)
        if tokens < ask.job.max_tokens:
            self._counts.aborted += 1
            return json_response(self._answer(ask, rid, tokens))
        self._counts.ran(ask)
        # Drawn at arrival, or put in force since and then striking all.
        if self._faults.fault.rate >= 1 and not self._faults.fault.marked:
            fault = self._faults.fault
        body = spoil(fault, self._answer(ask, rid, tokens), ask.texts)
        response: web.StreamResponse = web.Response(body=body, headers=JSON_HEADERS)
        if fault.drip:
            response = await drip(request, body)
        self._counts.completed += 1
        return response

    async def _stream(
        self, key: int, ask: Ask, rid: str, fault: Fault, request: web.BaseRequest
    ) -> web.StreamResponse:
        stream = Streaming(ask, rid, self._model.name, int(time.time()))
        running = asyncio.ensure_future(self._pace.run(key, ask.job))
        try:
            response = await stream.send(
                request, running, lambda: self._pace.tokens(key), fault.dies_at
            )
        finally:
            running.cancel()
        self._counts.ran(ask)
        self._counts.completed += 1
        return response

    def _answer(self, ask: Ask, rid: str, tokens: int) -> dict[str, Any]:
        return openai_api.answer(ask, rid, self._model.name, tokens, int(time.time()))

    def _refusal(self, fault: Fault, request: web.BaseRequest) -> web.Response | None:
        if self._faults.dies_now(struck=fault.die):
            os._exit(1)
        if not self._faults.ready():
            return error_response(
                503, "the engine is not ready", "ServiceUnavailable", fault
            )
        if fault.reset:
            return reset(request)
        if fault.status:
            return error_response(
                fault.status, "an injected fault", "InternalError", fault
            )
        return None

    async def _health(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._faults.fault.lie_health:
            return web.Response()
        await self._faults.moving()
        return await self._ready(request)

    async def _ready(self, request: web.BaseRequest) -> web.StreamResponse:
        up = self._faults.ready() and not self.draining
        return web.Response(status=200 if up else 503)

    async def _models(self, request: web.BaseRequest) -> web.StreamResponse:
        model = {
            "id": self._model.name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "sglang",
            "root": self._model.name,
            "parent": None,
            "max_model_len": self._model.context_length,
        }
        return json_response({"object": "list", "data": [model]})

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        load = self._pace.load()
        values = (
            ("num_running_reqs", "gauge", load.running),
            ("num_queue_reqs", "gauge", load.waiting),
            ("token_usage", "gauge", self._token_usage(load)),
            ("prompt_tokens_total", "counter", self._counts.prompt_tokens),
            ("generation_tokens_total", "counter", load.generated_tokens),
        )
        label = f'{{model_name="{self._model.name}"}}'
        lines = [
            f"# HELP sglang:{name} {name}.\n"
            f"# TYPE sglang:{name} {kind}\n"
            f"sglang:{name}{label} {float(value)}\n"
            for name, kind, value in values
        ]
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body="".join(lines).encode(), headers=headers)

    async def _loads(self, request: web.BaseRequest) -> web.StreamResponse:
        # Unlike the metrics, these come from the scheduler: they hang with it.
        await self._faults.moving()
        load = self._pace.load()
        rank = {
            "dp_rank": 0,
            "num_running_reqs": load.running,
            "num_waiting_reqs": load.waiting,
            "num_total_reqs": load.running + load.waiting,
            "num_used_tokens": load.held_tokens,
            "max_total_num_tokens": self._capacity_tokens,
            "max_running_requests": self._model.max_running,
            "token_usage": self._token_usage(load),
        }
        return json_response({"dp_rank_count": 1, "loads": [rank], "aggregate": None})

    @property
    def _capacity_tokens(self) -> int:
        return self._model.context_length * self._model.max_running

    def _token_usage(self, load: Load) -> float:
        return min(1.0, load.held_tokens / self._capacity_tokens)

    async def _tokenize(self, request: web.BaseRequest) -> web.StreamResponse:
        """A token for each word, which is its length."""
        prompt = str(orjson.loads(await request.read())["prompt"])
        tokens = [len(word) for word in prompt.split()]
        return json_response({"tokens": tokens, "count": len(tokens)})

    async def _abort(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError as error:
            return error_response(400, f"the body is not JSON: {error}")
        if not isinstance(body, dict):
            return error_response(400, "the body must be a JSON object")
        for key, rid in self._in_flight.items():
            if body.get("abort_all") or (rid and rid == body.get("rid")):
                self._pace.abort(key)
        return web.Response()

    async def _stats(self, request: web.BaseRequest) -> web.StreamResponse:
        counts = self._counts
        return json_response(
            {
                "received": counts.received,
                "refused": counts.refused,
                "aborted": counts.aborted,
                "completed": counts.completed,
                "in_flight": [rid for rid in self._in_flight.values() if rid],
                "most_in_flight": self._most_in_flight,
                "executed": counts.executed,
                # That of the last generation or embedding.
                "trace": self._trace,
                "pid": os.getpid(),
                "child_pid": self._model.child_pid,
            }
        )

    async def _show_fault(self, request: web.BaseRequest) -> web.StreamResponse:
        return json_response(self._faults.fault.as_json())

    async def _put_fault(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            fault = fault_from_json(orjson.loads(await request.read()))
        except (FaultError, orjson.JSONDecodeError) as error:
            return error_response(400, str(error))
        self._faults.put(fault)
        return await self._show_fault(request)

    async def _clear_fault(self, request: web.BaseRequest) -> web.StreamResponse:
        self._faults.put(Fault())
        return await self._show_fault(request)
