"""Bodies that come slowly, and those that break off."""

import asyncio

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from modelserver.gateway.faults import Refused
from modelserver.gateway.reading import read_body


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


def test_a_closed_connection_ends_its_body_at_once():
    async def read() -> None:
        request, stream = begun()
        stream.set_exception(ConnectionResetError("closed"))
        await read_body(request)

    with pytest.raises(ConnectionResetError):
        asyncio.run(read())
