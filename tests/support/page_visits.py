"""Visits to the fleet page: ``modelserver ui`` as a process, and HTTP to it."""

import asyncio
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from aiohttp import web

from modelserver.api import client
from modelserver.page.server import PageOptions, PageServer
from modelserver.settings import Settings
from tests.support.processes import ROOT, end

#: A visit takes no longer, in seconds.
VISIT_SECONDS = 60.0
#: Where visits come from that send wrong passwords: they are counted by address.
STRANGER = "127.0.0.2"


@dataclass(frozen=True)
class Reply:
    """What the page answered."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def token(self) -> str:
        """The token of its forms."""
        found = re.search(r'name="token" value="(\w+)"', self.text)
        assert found, self.text[:500]
        return found.group(1)


@dataclass
class PageVisit:
    """A running page, and a visitor who may have a session."""

    port: int
    #: What it said as it started.
    said: str
    cookie: str = ""

    def ask(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        cookie: str | None = None,
        source: str = "127.0.0.1",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request: GET, or POST of a form. The path is sent as it is."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, VISIT_SECONDS, source_address=(source, 0)
        )
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        sent = {"Cookie": self.cookie if cookie is None else cookie}
        sent |= (kind if form is not None else {}) | (headers or {})
        body = None if form is None else urlencode(form)
        try:
            connection.request("GET" if form is None else "POST", path, body, sent)
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Reply(
                response.status, response.read().decode(errors="replace"), told
            )
        finally:
            connection.close()

    def log_in(self, password: str) -> None:
        """Open a session."""
        reply = self.ask("/login", {"password": password})
        assert reply.status == 303, reply.text
        self.cookie = reply.headers["set-cookie"].partition(";")[0]

    def send_raw(self, content: bytes) -> bytes:
        """Bytes as they are; what comes back before the page hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), VISIT_SECONDS) as sock:
            try:
                sock.sendall(content)
                sock.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: sock.recv(65_536), b""))
            except TimeoutError:
                raise
            except OSError:  # It hung up while there was more to send.
                return b""


@contextmanager
def open_page(
    environment: Mapping[str, str], log: Path, *options: str
) -> Iterator[PageVisit]:
    """A page of this fleet at a free port."""
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelserver.cli", "ui", "--port", "0", *options],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout
    try:
        said = process.stdout.readline()
        found = re.search(r":(\d+),", said)
        assert found, log.read_text()
        yield PageVisit(int(found.group(1)), said)
        process.terminate()
        assert process.wait(VISIT_SECONDS) == 0, log.read_text()
    finally:
        end(process)
        process.stdout.close()


@contextmanager
def serve_page(
    settings: Settings, password: str, options: PageOptions
) -> Iterator[PageVisit]:
    """The same in a thread of this process, for what needs no program."""
    app = client(settings)
    loop, sock = asyncio.new_event_loop(), socket.create_server(("127.0.0.1", 0))
    served = PageServer(settings, app, password, options).application()
    runner = web.AppRunner(served, access_log=None)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, sock).start()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(VISIT_SECONDS)
        page = PageVisit(sock.getsockname()[1], "")
        page.log_in(password)
        yield page
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(VISIT_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        app.close()
