"""``modelserver metrics``: serves the fleet's state to Prometheus."""

import asyncio
import math
import time

import click
from aiohttp import BasicAuth, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from modelserver.cli.listening import listen, url_of
from modelserver.logs import start_logging
from modelserver.operations.prometheus import FleetCollector
from modelserver.page.door import Door
from modelserver.page.password import FLOWER_USER, find_password
from modelserver.settings import load

#: A scrape has no body; the largest that is read, in bytes.
MOST_BODY_BYTES = 1024


@click.command()
@click.option(
    "--port",
    default=9808,
    show_default=True,
    help="Port to listen at; with 0 any free one.",
)
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. Passwords travel in clear text.",
)
@click.option(
    "--password/--no-password",
    "is_shut",
    default=False,
    help="Whether scrapers give the user modelserver and the fleet page's password.",
)
def metrics(port: int, address: str, is_shut: bool) -> None:
    """Serve metrics of the whole fleet for Prometheus, until Ctrl-C.

    One for a whole fleet is enough, on any host.
    """
    settings = load()
    start_logging(settings.json_logs)
    door = Door(find_password(settings).text) if is_shut else None
    sock = listen(address, port)
    server = MetricsServer(FleetCollector(settings), door)
    click.echo(f"Metrics at {url_of(sock)}/metrics")
    web.run_app(server.application(), sock=sock, print=None, access_log=None)


class MetricsServer:
    """Answers scrapes; with a door only those that give its password."""

    def __init__(self, collector: FleetCollector, door: Door | None) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        self._door = door

    def application(self) -> web.Application:
        """The server's application."""
        app = web.Application(client_max_size=MOST_BODY_BYTES)
        app.add_routes([web.get("/metrics", self._metrics)])
        return app

    async def _metrics(self, request: web.Request) -> web.Response:
        self._admit(request)
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        page = await asyncio.to_thread(encode, self._registry)
        response = web.Response(body=page, headers={"Content-Type": kind})
        response.enable_compression()
        return response

    def _admit(self, request: web.Request) -> None:
        """Refuse whoever does not give the password."""
        if self._door is None:
            return
        address, now = request.remote or "", time.time()
        if wait := math.ceil(self._door.wait_seconds(address, now)):
            raise web.HTTPTooManyRequests(headers={"Retry-After": str(wait)})
        asked = {"WWW-Authenticate": 'Basic realm="modelserver"'}
        try:
            told = BasicAuth.decode(request.headers["Authorization"], "utf-8")
        except (KeyError, ValueError):
            raise web.HTTPUnauthorized(headers=asked) from None
        is_right = self._door.is_right(told.password, address, now)
        if not is_right or told.login != FLOWER_USER:
            raise web.HTTPUnauthorized(headers=asked)
