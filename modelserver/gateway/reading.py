"""The bodies of requests as they come in, each within bounded time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import orjson
from aiohttp import BodyPartReader, web

from modelserver.gateway.faults import Fault, Refused

#: A JSON body that has not come after so many seconds is not waited for, nor the next
#: bytes of a file.
BODY_SECONDS = 60.0
#: Bytes of an upload that are read at a time.
CHUNK_BYTES = 1 << 18

T = TypeVar("T")


async def read_json_body(request: web.Request) -> Any:
    """The body's JSON. Raises Refused."""
    content = await _in_time(request.read())
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        text = f"the body is not JSON: {error}"
        raise Refused(Fault(400, text, code="invalid_json")) from None


async def read_chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    """The content of a file in a form. Raises Refused."""
    while chunk := await _in_time(part.read_chunk(CHUNK_BYTES)):
        yield part.decode(chunk)


async def _in_time(reading: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await reading
    except TimeoutError:
        text = f"the body had not come after {BODY_SECONDS:.0f} s"
        raise Refused(Fault(408, text, code="request_timeout")) from None
