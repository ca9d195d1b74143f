"""A gateway of the fleet that the tests of a module share."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.processes import ROOT
from tests.support.workers import PATIENCE, FleetSite


@dataclass(frozen=True)
class Served:
    """A running ``modelserver serve``."""

    process: "subprocess.Popen[str]"
    port: int

    def ask(
        self,
        path: str,
        body: Any = None,
        method: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, dict[str, str]]:
        """One request: its status, its body as JSON, its headers."""
        with self.connected() as connection:
            data = None if body is None else json.dumps(body)
            given = {"Content-Type": "application/json"} | (headers or {})
            connection.request(
                method or ("GET" if body is None else "POST"), path, data, given
            )
            response = connection.getresponse()
            content = response.read()
            told = {name.lower(): value for name, value in response.getheaders()}
            is_json = told.get("content-type", "").startswith("application/json")
            return response.status, json.loads(content) if is_json else content, told

    @contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            yield connection
        finally:
            connection.close()

    def events(self, path: str, body: Any) -> Iterator[Any]:
        """The events of a stream: JSON, and the text of the last one."""
        with self.connected() as connection:
            connection.request("POST", path, json.dumps(body | {"stream": True}))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            for line in response:
                if line.startswith(b"data: "):
                    content = line[6:].strip()
                    is_end = content == b"[DONE]"
                    yield "[DONE]" if is_end else json.loads(content)


@contextmanager
def open_gateway(
    site: FleetSite, *options: str, prefix: Sequence[str] = ()
) -> Iterator[Served]:
    """A gateway of this fleet at a free port; ``prefix`` are words before its own."""
    serve = [sys.executable, "-m", "modelserver.cli", "serve", "--port", "0"]
    with (site.folder / "gateway.log").open("a") as log:
        process = subprocess.Popen(
            [*prefix, *serve, *options],
            cwd=ROOT,
            env={**os.environ, **site.environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout
    try:
        said = process.stdout.readline()
        assert "/v1" in said, (site.folder / "gateway.log").read_text()
        yield Served(process, int(said.rpartition(":")[2].partition("/")[0]))
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()


@pytest.fixture(scope="module")
def open_site(site: FleetSite) -> Iterator[Served]:
    with open_gateway(site) as gateway:
        yield gateway


@pytest.fixture
def gateway(fleet: FleetSite, open_site: Served) -> Served:
    """The module's gateway, in front of a healthy fleet."""
    return open_site
