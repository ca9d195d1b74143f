"""Ways to answer, and not to answer, a request."""

import asyncio
import socket
import struct

import orjson
from aiohttp import web

from tests.engine import openai_api
from tests.engine.faults import Fault

JSON_HEADERS = {"Content-Type": "application/json"}


def json_response(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), headers=JSON_HEADERS)


def error_response(
    status: int,
    message: str,
    kind: str = "BadRequestError",
    fault: Fault | None = None,
) -> web.Response:
    headers = dict(JSON_HEADERS)
    if fault and fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    body = openai_api.error_body(status, message, kind)
    return web.Response(status=status, body=body, headers=headers)


def reset(request: web.BaseRequest) -> web.Response:
    """Cut the connection; what is returned reaches nobody."""
    transport = request.transport
    if transport is not None:
        # Lingering for no time makes the kernel send a reset, not an end.
        linger = struct.pack("ii", 1, 0)
        opened = transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


async def drip(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Send an answer, one byte a second."""
    response = web.StreamResponse(headers=JSON_HEADERS)
    response.content_length = len(body)
    await response.prepare(request)
    for index in range(len(body)):
        await response.write(body[index : index + 1])
        await asyncio.sleep(1)
    return response
