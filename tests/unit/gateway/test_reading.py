"""Bodies that come slowly, and those that break off."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event, get_ident

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from modelserver.gateway.faults import Refused
from modelserver.gateway.reading import (
    IS_SHORT,
    LONG_BODIES,
    look_through,
    read_body,
    read_field,
    read_parts,
)


def begun(most: int = 100) -> tuple[web.Request, StreamReader]:
    """A request of whose body the beginning has come."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    stream = StreamReader(protocol, 2**16, loop=loop)
    stream.feed_data(b"{")
    request = make_mocked_request("POST", "/", payload=stream, client_max_size=most)
    return request, stream


def test_a_body_that_breaks_off_is_not_waited_for():
    async def read() -> None:
        request, _ = begun()
        await read_body(request, silent_seconds=0.2)

    with pytest.raises(Refused) as refused:
        asyncio.run(read())
    assert refused.value.fault.status == 408
    assert "had not come after 0.2 s" in refused.value.fault.message


def test_a_slow_body_is_waited_for_as_long_as_it_comes():
    async def read() -> bytes:
        request, stream = begun()
        loop = asyncio.get_running_loop()
        for step in range(5):
            loop.call_later(0.5 * step, stream.feed_data, b" ")
        loop.call_later(2.5, stream.feed_eof)
        return await read_body(request, silent_seconds=2.0)

    assert asyncio.run(read()) == b"{     "


def test_a_body_is_only_so_large():
    async def read() -> None:
        request, stream = begun(most=3)
        stream.feed_data(b"    ")
        await read_body(request)

    with pytest.raises(web.HTTPRequestEntityTooLarge):
        asyncio.run(read())


def form(*parts: bytes) -> tuple[web.Request, StreamReader]:
    """A request whose body is a form of which these parts have come."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    stream = StreamReader(protocol, 2**16, loop=loop)
    for part in parts:
        stream.feed_data(b"--m\r\n" + part + b"\r\n")
    kind = {"Content-Type": "multipart/form-data; boundary=m"}
    return make_mocked_request("POST", "/", headers=kind, payload=stream), stream


def field(name: str, value: bytes) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value


async def read_form(request: web.Request) -> dict[str | None, str]:
    parts = read_parts(request, silent_seconds=0.2)
    return {part.name: await read_field(part, 0.2) async for part in parts}


def test_a_form_is_read_by_its_parts():
    async def read() -> dict[str | None, str]:
        request, stream = form(field("a", b"1"), field("b", b"2"))
        stream.feed_data(b"--m--\r\n")
        stream.feed_eof()
        return await read_form(request)

    assert asyncio.run(read()) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("part", [b"Content-Disp", b"", field("b", b"2")])
def test_a_form_that_breaks_off_between_its_parts_is_not_waited_for(part: bytes):
    async def read() -> None:
        request, _ = form(field("a", b"1"), part)
        await read_form(request)

    with pytest.raises(Refused) as refused:
        asyncio.run(asyncio.wait_for(read(), 30))
    assert refused.value.fault.status == 408


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([field("a", b"1")] * 65, "more than 64 parts"),
        ([field("a", b"1" * 20_000)], "a has more than 10,000 bytes"),
        ([b"Content-Type: multipart/mixed; boundary=n\r\n\r\n--n--"], "a form in it"),
    ],
)
def test_a_form_is_only_so_large(parts: list[bytes], told: str):
    async def read() -> None:
        request, stream = form(*parts)
        stream.feed_data(b"--m--\r\n")
        stream.feed_eof()
        await read_form(request)

    with pytest.raises(Refused, match=told):
        asyncio.run(read())


@pytest.mark.parametrize("is_short", [True, False])
def test_a_long_body_is_looked_through_beside_the_loop(is_short: bool):
    async def look() -> bool:
        request, _ = begun()
        request[IS_SHORT] = is_short
        request.app[LONG_BODIES] = ThreadPoolExecutor(1)
        return await look_through(request, get_ident) == get_ident()

    assert asyncio.run(look()) == is_short


def test_long_bodies_leave_the_threads_to_others():
    async def ask() -> str:
        request, _ = begun()
        request[IS_SHORT] = False
        request.app[LONG_BODIES] = ThreadPoolExecutor(1)
        is_over = Event()
        # More than asyncio has threads.
        long = [
            asyncio.create_task(look_through(request, is_over.wait)) for _ in range(40)
        ]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: "answered"), 30)
        finally:
            is_over.set()
            await asyncio.gather(*long)

    assert asyncio.run(ask()) == "answered"


def test_a_closed_connection_ends_its_body_at_once():
    async def read() -> None:
        request, stream = begun()
        stream.set_exception(ConnectionResetError("closed"))
        await read_body(request)

    with pytest.raises(ConnectionResetError):
        asyncio.run(read())
