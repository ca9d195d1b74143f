"""What a worker makes of an engine's HTTP, on a real engine of the tests."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from modelserver.engine_client import ask, ask_in_parts, open_session
from modelserver.engine_protocol import EngineFault, RequestFault
from tests.engine.process import EngineProcess


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    process = EngineProcess("--model", "m")
    yield process
    process.kill()


async def refusal_of(engine: EngineProcess) -> EngineFault:
    async with open_session() as session:
        with pytest.raises(EngineFault) as raised:
            await ask(session, f"{engine.url}/v1/completions", {"prompt": "a"})
        return raised.value


@pytest.mark.parametrize(
    ("asked", "waited"), [(3, 3.0), (86_400, 10.0), (0, 0.0), (-86_400, 0.0)]
)
def test_an_engine_asks_for_no_more_than_a_short_wait(
    engine: EngineProcess, asked: int, waited: float
):
    engine.fault(status=503, retry_after=asked)
    assert asyncio.run(refusal_of(engine)).retry_after == waited


def parts_of(content: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that a server sends as it is."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type="text/event-stream")

    async def read() -> list[dict[str, Any]]:
        app = web.Application()
        app.router.add_post("/v1/completions", answer)
        async with TestServer(app) as server, open_session() as session:
            url = str(server.make_url("/v1/completions"))
            return [part async for part in ask_in_parts(session, url, {})]

    return asyncio.run(read())


def test_a_chunk_may_have_any_length():
    chunks = [{"choices": [], "long": "x" * 1_000_000}, {"choices": []}]
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    content = ": a comment\n\n" + "".join(lines) + "data: [DONE]\n\n"
    assert parts_of(content.encode()) == chunks


@pytest.mark.parametrize(
    "content",
    [
        b'data: {"choices": []}\n\n',
        b'data: {"choices"',
        b"data: no JSON\n\ndata: [DONE]\n\n",
        b'data: {"error": {"message": "broke", "code": 500}}\n\ndata: [DONE]\n\n',
        b'data: {"type": "response.created", "response": {}}\n\n',
        b'data: {"type": "response.failed", "response": {"error": {}}}\n\n',
        b'data: {"type": "error", "message": "broke"}\n\n',
    ],
)
def test_a_stream_that_breaks_off_is_the_engines_fault(content: bytes):
    with pytest.raises(EngineFault):
        parts_of(content)


@pytest.mark.parametrize("kind", ["completed", "incomplete"])
def test_a_response_ends_with_its_last_event(kind: str):
    events = [{"type": "response.created"}, {"type": f"response.{kind}"}]
    lines = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events]
    assert parts_of("".join(lines).encode()) == events


@pytest.mark.parametrize(
    "text",
    [
        "Requested token count exceeds the model's maximum context length of 4096",
        "The input (6011 tokens) is longer than the model's context length (4096)",
    ],
)
def test_a_response_that_fails_as_too_long_is_the_requests_fault(text: str):
    error = {"code": "server_error", "message": text}
    event = {"type": "response.failed", "response": {"error": error}}
    with pytest.raises(RequestFault, match="context length"):
        parts_of(f"data: {json.dumps(event)}\n\n".encode())


def test_a_redirect_of_an_engine_is_not_followed():
    asked = []

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/inside")

    async def inside(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"choices": [{"text": "secret"}]})

    async def read() -> None:
        app = web.Application()
        app.router.add_post("/v1/completions", redirect)
        app.router.add_post("/inside", inside)
        async with TestServer(app) as server, open_session() as session:
            url = str(server.make_url("/v1/completions"))
            with pytest.raises(EngineFault, match="status 307"):
                await ask(session, url, {})
            with pytest.raises(EngineFault, match="status 307"):
                async for _ in ask_in_parts(session, url, {}):
                    pass

    asyncio.run(read())
    assert asked == []
