"""Requests as they come in: their paths, and bodies, each within bounded time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import orjson
from aiohttp import BodyPartReader, web

from modelserver.extent import find_excess
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.unpacking import find_packing, unpack

#: The largest body that is read, in bytes, also of what it unpacks to.
MOST_BODY_BYTES = 64_000_000
#: A body of so many bytes is looked through on the loop, a larger one in a thread.
SHORT_BODY_BYTES = 100_000
#: Of an application: where long bodies are looked through. It has one thread, so that
#: what is short comes to its turns between them, and to other threads at once.
LONG_BODIES = web.AppKey("long_bodies", ThreadPoolExecutor)
#: Of a request whose body was read: whether it is such a short one.
IS_SHORT = web.RequestKey("is_short", bool)
#: A JSON body of which nothing comes for so many seconds has broken off, also where its
#: chunks are none: then the connection stays open and brings no more.
SILENT_BODY_SECONDS = 10.0
#: A JSON body that keeps coming may take so many seconds in all.
BODY_SECONDS = 300.0
#: The next bytes of a file may take so many seconds.
CHUNK_SECONDS = 60.0
#: Most parts of a form, and most bytes of one that is no file.
MOST_PARTS, MOST_FIELD_BYTES = 64, 10_000
#: Bytes of an upload that are read at a time.
CHUNK_BYTES = 1 << 18
T = TypeVar("T")
#: Sends who doubled a slash or ended with one to the path that they meant.
TIDY_PATHS = web.normalize_path_middleware(
    append_slash=False,
    remove_slash=True,
    redirect_class=web.HTTPPermanentRedirect,
)


async def read_json_body(request: web.Request) -> Any:
    """The body's JSON. Notes IS_SHORT. Raises Refused, HTTPRequestEntityTooLarge."""
    packing = find_packing(request.headers.getall("Content-Encoding", []))
    content = await read_body(request)
    if not packing and len(content) <= SHORT_BODY_BYTES:
        request[IS_SHORT] = True
        return _loaded(content)
    # A few bytes may unpack to millions: no more than may come unpacked.
    most, request[IS_SHORT] = request.client_max_size, False
    return await look_through(request, lambda: _unpacked(content, packing, most))


def _unpacked(packed: bytearray, packing: str, most: int) -> Any:
    found = unpack(packed, packing, most) if packing else packed
    if found is None:
        raise web.HTTPRequestEntityTooLarge(most, most + 1)
    return _loaded(found)


def _loaded(content: bytes | bytearray) -> Any:
    if told := find_excess(content):
        text = f"the body has more than {told}; send it in several requests"
        raise Refused(Fault(413, text, code="request_too_large"))
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        text = f"the body is not JSON: {error}"
        raise Refused(Fault(400, text, code="invalid_json")) from None


async def read_body(
    request: web.Request, silent_seconds: float = SILENT_BODY_SECONDS
) -> bytearray:
    """The body. Raises Refused where it breaks off, HTTPRequestEntityTooLarge."""
    body, clock, most = bytearray(), asyncio.get_running_loop(), request.client_max_size
    end = clock.time() + BODY_SECONDS
    try:
        async with asyncio.timeout(None) as limit:
            while True:
                limit.reschedule(min(end, clock.time() + silent_seconds))
                if not (chunk := await request.content.readany()):
                    return body  # No copy: that of a long one holds the loop.
                body += chunk
                if len(body) > most:
                    raise web.HTTPRequestEntityTooLarge(most, len(body))
    except TimeoutError:
        raise _late(BODY_SECONDS if clock.time() >= end else silent_seconds) from None


async def look_through(request: web.Request, look: Callable[[], T]) -> T:
    """What is found in a body: of a short one at once, else beside other requests."""
    if request[IS_SHORT]:
        return look()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(request.app[LONG_BODIES], look)


async def read_parts(
    request: web.Request, silent_seconds: float = CHUNK_SECONDS
) -> AsyncIterator[BodyPartReader]:
    """The parts of a form; each is to be read before the next. Raises Refused."""
    form = await request.multipart()
    for _ in range(MOST_PARTS):
        part = await _in_time(form.next(), silent_seconds)
        if part is None:
            return
        if not isinstance(part, BodyPartReader):
            text = "the form has a form in it; send the file as a part of its own"
            raise Refused(Fault(400, text, code="invalid_body"))
        yield part
    text = f"the form has more than {MOST_PARTS} parts; send the file and its purpose"
    raise Refused(Fault(400, text, code="invalid_body"))


async def read_field(
    part: BodyPartReader, silent_seconds: float = CHUNK_SECONDS
) -> str:
    """The text of a part that is no file. Raises Refused."""
    found = b""
    async for chunk in read_chunks(part, silent_seconds):
        found += chunk
        if len(found) > MOST_FIELD_BYTES:
            name = (part.name or "")[:64]
            text = f"{name} has more than {MOST_FIELD_BYTES:,} bytes; leave it out"
            raise Refused(Fault(400, text, param=name))
    return found.decode(errors="replace")


async def read_chunks(
    part: BodyPartReader, silent_seconds: float = CHUNK_SECONDS
) -> AsyncIterator[bytes]:
    """The content of a part of a form. Raises Refused."""
    while chunk := await _in_time(part.read_chunk(CHUNK_BYTES), silent_seconds):
        yield part.decode(chunk)


async def _in_time(coming: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await coming
    except TimeoutError:
        raise _late(seconds) from None


def _late(seconds: float) -> Refused:
    text = f"the rest of the body had not come after {seconds:g} s"
    return Refused(Fault(408, text, code="request_timeout"))
