"""``modelserver serve``: OpenAI's HTTP in front of the fleet."""

import asyncio
import ipaddress
import logging
import signal
import socket

import click
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from modelserver.api import client
from modelserver.cli.listening import listen, url_of
from modelserver.garbage import tame_collection
from modelserver.gateway.connection import Connection
from modelserver.gateway.server import IDLE_SECONDS, Gateway
from modelserver.logs import start_logging
from modelserver.settings import load
from modelserver.tracing import start_exporting

#: Where clients are taught to look, unless told otherwise.
PORT = 8080
#: Requests under way have so many seconds to end after SIGTERM.
LAST_SECONDS = 30.0
#: Connections that wait to be taken.
BACKLOG = 1024


@click.command()
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    help="Port to listen at; with 0 any free one.",
)
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. At others than this machine's every request needs a "
    "key: see keys.",
)
def serve(port: int, address: str) -> None:
    """Serve OpenAI's HTTP API in front of the fleet, until Ctrl-C.

    Several may run side by side, on any hosts. A client's base URL ends with /v1.
    """
    settings = load()
    start_logging(settings.json_logs)
    if settings.is_traced:
        start_exporting("modelserver-gateway")
    sock = listen(address, port, backlog=BACKLOG)
    is_local = ipaddress.ip_address(sock.getsockname()[0]).is_loopback
    gateway = Gateway(settings, client(settings), is_local)
    asyncio.run(_serve(gateway, sock))


async def _serve(gateway: Gateway, sock: socket.socket) -> None:
    logging.getLogger("aiohttp.server").addFilter(_is_of_ours)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runner = web.AppRunner(
        gateway.application(),
        # A client that goes away cancels its request.
        handler_cancellation=True,
        shutdown_timeout=LAST_SECONDS,
    )
    await runner.setup()
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None

    def connect() -> Connection:
        return Connection(
            server,
            loop=loop,
            access_log=None,  # No such log.
            keepalive_timeout=IDLE_SECONDS,
        )

    listening = await loop.create_server(connect, sock=sock, backlog=BACKLOG)
    tame_collection()
    click.echo(f"OpenAI API at {url_of(sock)}/v1")
    crowd = asyncio.create_task(gateway.crowd.keep_small(server))
    await stopped.wait()
    crowd.cancel()
    listening.close()
    await runner.cleanup()


def _is_of_ours(record: logging.LogRecord) -> bool:
    """Whether a log line tells of a fault of ours.

    The others quote what a client sent that is no HTTP, a prompt perhaps.
    """
    theirs = (HttpProcessingError, web.RequestPayloadError)
    return not (record.exc_info and isinstance(record.exc_info[1], theirs))
