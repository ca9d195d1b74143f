"""Every port that we open: strangers and what is no HTTP are refused, nothing falls."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
import pytest

from tests.support.fleet_records import Records
from tests.support.page_visits import PageVisit, Reply
from tests.support.processes import ROOT, ValkeyProcess, end, eventually, free_port

PASSWORD = "a heron in the reeds"
#: Each server, and what it shows to nobody without a password or a key.
SHUT = {
    "ui": ("/", "/engines/chat-0", "/?part"),
    "serve": ("/v1/models", "/v1/files", "/v1/batches"),
    "flower": ("/", "/tasks", "/broker", "/api/workers", "/api/task/types"),
    "metrics": ("/metrics",),
}
#: What each answers to a stranger who asks whether it is well.
WELL = {
    "ui": ("/health", 200),
    "serve": ("/health", 200),
    "flower": ("/healthcheck", 200),
    "metrics": ("/", 404),
}
#: What the servers are started with.
OPTIONS = {"metrics": ["--password"]}
#: Where other files would be, if a server took a path for a file's.
WAYS_OUT = (
    "/../../../../etc/passwd",
    "/static/../../../../etc/passwd",
    "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/v1/files/..%2f..%2f..%2fetc%2fpasswd/content",
    "/static/page.css%00",
)
#: What is no request.
NO_HTTP = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "line": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000 + b"\r\n\r\n",
    "headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    "length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Content-Length: 6\r\n\r\nabcdef",
    "chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@dataclass(frozen=True)
class OpenPort:
    """A server that runs, and a stranger who visits it."""

    name: str
    process: "subprocess.Popen[bytes]"
    visit: PageVisit

    def ask(self, path: str, **headers: str) -> Reply:
        return self.visit.ask(path, cookie="", headers=headers)

    @property
    def is_well(self) -> bool:
        """Whether it still answers."""
        path, status = WELL[self.name]
        return self.process.poll() is None and self.ask(path).status == status


@contextmanager
def start(name: str, records: Records) -> Iterator[OpenPort]:
    """One server, at a port that is free."""
    port, log = free_port(), records.settings.fleet_file.parent / f"{name}.log"
    told = {"MODELSERVER_PASSWORD": PASSWORD}
    options = [f"--port={port}", *OPTIONS.get(name, ())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelserver.cli", name, *options],
            cwd=ROOT,
            env={**os.environ, **records.environment, **told},
            stdout=output,
            stderr=output,
        )
    try:
        yield OpenPort(name, process, PageVisit(port, ""))
    finally:
        end(process)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, OpenPort]]:
    """All servers at once, of one fleet that has API keys."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "valkey").mkdir()
    valkey = ValkeyProcess(folder / "valkey").start()
    records = Records.open(folder, valkey.url, ("chat", "absent"))
    records.write(engines=2)
    with ExitStack() as stack:
        found = {name: stack.enter_context(start(name, records)) for name in SHUT}
        for each in found.values():
            eventually(lambda each=each: listens(each) and each.is_well)  # type: ignore[misc]
        yield found
    records.store.client.close()
    valkey.stop()


def listens(port: OpenPort) -> bool:
    return port.visit.port in {number for _, number in addresses(port)}


def addresses(port: OpenPort) -> set[tuple[str, int]]:
    """Where a server listens: address and port."""
    found = psutil.Process(port.process.pid).net_connections("inet")
    return {tuple(each.laddr) for each in found if each.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("name", SHUT)
def test_it_listens_on_loopback_alone(ports: dict[str, OpenPort], name: str):
    assert addresses(ports[name]) == {("127.0.0.1", ports[name].visit.port)}


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, paths in SHUT.items() for path in paths]
)
def test_strangers_see_nothing(ports: dict[str, OpenPort], name: str, path: str):
    wrong = "Bearer sk-wrong" if name == "serve" else "Basic bW9kZWxzZXJ2ZXI6d3Jvbmc="
    for headers in ({}, {"Authorization": wrong}):
        reply = ports[name].ask(path, **headers)
        assert reply.status == 401, reply.text[:200]
        assert "chat" not in reply.text


@pytest.mark.parametrize("name", SHUT)
def test_no_path_leads_to_other_files(ports: dict[str, OpenPort], name: str):
    for path in WAYS_OUT:
        reply = ports[name].ask(path)
        assert "root:" not in reply.text, path
        # Flower answers 500 to a path that no file can have.
        assert reply.status in (400, 401, 403, 404, 500), path
    assert ports[name].is_well


@pytest.mark.parametrize("name", SHUT)
def test_what_is_no_http_is_refused_and_nothing_falls(
    ports: dict[str, OpenPort], name: str
):
    answers = {
        what: ports[name].visit.send_raw(content).partition(b"\r\n")[0]
        for what, content in NO_HTTP.items()
    }
    taken = {
        what: head
        for what, head in answers.items()
        if head and not re.match(rb"HTTP/1\.[01] [45]\d\d ", head)
    }
    assert taken == {}
    assert ports[name].is_well


def test_scrapers_that_give_the_password_are_answered(ports: dict[str, OpenPort]):
    told = base64.b64encode(f"modelserver:{PASSWORD}".encode()).decode()
    reply = ports["metrics"].ask("/metrics", Authorization=f"Basic {told}")
    assert reply.status == 200
    assert "modelserver_up 1.0" in reply.text
