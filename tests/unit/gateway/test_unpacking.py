"""Bodies that came packed."""

import asyncio
import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from modelserver.gateway.connection import Connection
from modelserver.gateway.faults import Refused
from modelserver.gateway.reading import LONG_BODIES, read_json_body
from modelserver.gateway.unpacking import find_packing, unpack

TEXT = b'{"prompt": "hello"}'


def bare(content: bytes) -> bytes:
    """Deflated without zlib's head, as some clients send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("packing", "packed"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare(TEXT)),
    ],
    ids=["gzip", "deflate", "bare deflate"],
)
def test_a_packed_body_is_unpacked_up_to_its_bound(packing: str, packed: bytes):
    assert unpack(packed, packing, len(TEXT)) == TEXT
    assert unpack(packed, packing, len(TEXT) - 1) is None


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[:-12],
        lambda packed: packed + b"more",
        lambda packed: packed + packed,
        lambda packed: packed[:-1] + b"\xff",
        lambda packed: b"",
        lambda packed: b"hello",
        lambda packed: TEXT,
    ],
)
def test_what_is_damaged_is_refused_in_words(packing: str, damage):
    packed = gzip.compress(TEXT) if packing == "gzip" else zlib.compress(TEXT)
    with pytest.raises(Refused, match=f"the body is no {packing}: ") as refused:
        unpack(damage(packed), packing, 1_000)
    assert refused.value.fault.status == 400


@pytest.mark.parametrize(
    "headers",
    [["br"], ["zstd"], ["gzip, gzip"], ["gzip", "gzip"], ["deflate", "br"], ["gz\xe9"]],
)
def test_what_nobody_can_unpack_is_refused(headers: list[str]):
    with pytest.raises(Refused) as refused:
        find_packing(headers)
    assert refused.value.fault.status == 415


def test_the_loop_turns_while_bodies_are_unpacked():
    bomb = gzip.compress(b'"' + b"a" * 50_000_000 + b'"')
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n"

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await read_json_body(request))))

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb)
        told = await reader.readuntil(b"50000000")
        writer.close()
        await writer.wait_closed()
        return told

    async def count_turns() -> int:
        app = web.Application(client_max_size=64_000_000)
        app[LONG_BODIES] = ThreadPoolExecutor(1)
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        loop, served, turns = asyncio.get_running_loop(), runner.server, 0
        assert served is not None
        server = await loop.create_server(
            lambda: Connection(served, loop=loop), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        asking = [asyncio.create_task(ask(port)) for _ in range(4)]
        while not asking[0].done():
            await asyncio.sleep(0)
            turns += 1
        await asyncio.gather(*asking)
        server.close()
        await runner.cleanup()
        return turns

    # Unpacked on the loop, the bodies leave it a dozen.
    assert asyncio.run(count_turns()) > 500
