"""One connection for many commands and channels, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import redis
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ResponseError

from modelserver.store.server.connections import open_async
from modelserver.store.server.line import Line
from tests.support.processes import ValkeyProcess, eventually

#: How long anything here may take, in seconds.
PATIENCE = 20.0


class Site:
    """A line to a server, and what was heard on it."""

    def __init__(self, url: str) -> None:
        self.client = open_async(url, 4)
        self.opened = asyncio.Semaphore(0)
        #: Whether the line counted as lost, at each opening.
        self.was_lost: list[bool] = []
        self.heard: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self.line = Line(
            self.client, lambda *told: self.heard.put_nowait(told), self._open
        )

    def _open(self) -> None:
        self.was_lost.append(self.line.lost_at is not None)
        self.opened.release()
        self.line.subscribe("news")

    async def hear(self) -> tuple[bytes, bytes]:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    async def is_opened(self) -> None:
        await asyncio.wait_for(self.opened.acquire(), PATIENCE)


@asynccontextmanager
async def site_at(url: str) -> AsyncIterator[Site]:
    site = Site(url)
    running = asyncio.create_task(site.line.run())
    try:
        await site.is_opened()
        yield site
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await site.client.aclose()


def test_replies_come_in_the_order_of_the_commands(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            replies = [site.line.send("ECHO", str(number)) for number in range(500)]
            found = await asyncio.gather(*replies)
            assert found == [str(number).encode() for number in range(500)]

    asyncio.run(look())


def test_long_values_stand_in_their_places_among_others(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            long = b"a\r\n" * 1_000_000
            sent = [b"1", long, b"2", long, long, b"3"]
            replies = [site.line.send("ECHO", value) for value in sent]
            counted = site.line.send("EVAL", "return #ARGV[2]", 0, 7, long, "text", 0.5)
            assert await asyncio.gather(*replies) == sent
            assert await counted == len(long)

    asyncio.run(look())


def test_channels_are_heard_by_a_pattern_too(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            site.line.subscribe_by("bell:*")
            replies = [site.line.send("PUBLISH", "bell:m", "1")]
            replies += [site.line.send("PUBLISH", "bel", "2")]
            assert await asyncio.gather(*replies) == [1, 0]
            assert await site.hear() == (b"bell:m", b"1")

    asyncio.run(look())


def test_what_channels_tell_is_told_apart_from_replies(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            site.line.subscribe("a", "b")
            replies = []
            for text in ("1", "2", "3"):
                replies.append(site.line.send("PUBLISH", "a", text))
                replies.append(site.line.send("ECHO", text))
            site.line.unsubscribe("a")
            replies += [site.line.send("PUBLISH", name, "4") for name in ("a", "b")]
            found = await asyncio.gather(*replies)
            assert found == [1, b"1", 1, b"2", 1, b"3", 0, 1]
            assert [await site.hear() for _ in range(4)] == [
                *((b"a", text) for text in (b"1", b"2", b"3")),
                (b"b", b"4"),
            ]

    asyncio.run(look())


def test_an_error_is_its_own_commands(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            wrong, right = site.line.send("HGET", "x"), site.line.send("ECHO", "x")
            with pytest.raises(ResponseError, match="wrong number"):
                await wrong
            assert await right == b"x"
            left = site.line.send("ECHO", "left")
            left.cancel()
            assert await site.line.send("ECHO", "y") == b"y"

    asyncio.run(look())


def test_a_lost_connection_fails_what_waits_and_is_opened_again(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            waits = site.line.send("BLPOP", "nothing", "0")
            with redis.Redis.from_url(valkey.url) as other:
                other.client_kill_filter(_type="pubsub")
                with pytest.raises((LostError, OSError)):
                    await waits
                await site.is_opened()
                assert await site.line.send("ECHO", "x") == b"x"
                other.publish("news", "again")
            assert await site.hear() == (b"news", b"again")
            assert site.line.lost_at is None

    asyncio.run(look())


def test_a_subscription_that_a_busy_server_refuses_takes_no_commands_place(
    valkey: ValkeyProcess, caplog: pytest.LogCaptureFixture
):
    busy, other = redis.Redis.from_url(valkey.url), redis.Redis.from_url(valkey.url)
    other.config_set("busy-reply-threshold", 1)

    def is_busy() -> bool:
        try:
            other.echo("x")
        except ResponseError as error:
            return str(error).startswith("BUSY")
        return False

    async def look() -> None:
        async with site_at(valkey.url) as site:
            running = asyncio.create_task(
                asyncio.to_thread(busy.eval, "while true do end", 0)
            )
            await asyncio.to_thread(eventually, is_busy)
            site.line.subscribe("more")
            await asyncio.to_thread(eventually, lambda: site.line.lost_at is not None)
            other.script_kill()
            with pytest.raises(ResponseError):
                await running
            while not await answers(site.line):
                await site.is_opened()

    asyncio.run(look())
    assert "opened again" not in caplog.text
    busy.close()
    other.close()


async def answers(line: Line) -> bool:
    with suppress(LostError, ResponseError):
        return await line.send("ECHO", "x") == b"x"
    return False


def test_without_a_server_a_command_is_refused_at_once(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            valkey.stop()
            await asyncio.to_thread(eventually, lambda: site.line.lost_at is not None)
            with pytest.raises(LostError):
                site.line.send("ECHO", "x")

    asyncio.run(look())


def test_who_waits_hears_that_the_line_has_ended(valkey: ValkeyProcess):
    async def look() -> None:
        async with site_at(valkey.url) as site:
            waits = site.line.send("BLPOP", "nothing", "0")
        with pytest.raises(LostError):
            await asyncio.wait_for(waits, PATIENCE)

    asyncio.run(look())


def test_a_server_that_refuses_a_channel_is_lost_until_it_grants_it(
    valkey: ValkeyProcess,
):
    async def look() -> None:
        with redis.Redis.from_url(valkey.url) as other:
            rules = ("on", ">secret", "~*", "+@all", "resetchannels")
            other.execute_command("ACL", "SETUSER", "deaf", *rules)
            url = valkey.url.replace("://", "://deaf:secret@")
            async with site_at(url) as site:
                await site.is_opened()
                await site.is_opened()
                assert site.was_lost[:3] == [False, True, True]
                other.execute_command("ACL", "SETUSER", "deaf", "&*")
                await asyncio.to_thread(eventually, lambda: site.line.lost_at is None)

    asyncio.run(look())
