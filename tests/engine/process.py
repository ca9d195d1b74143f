"""Start engines from a test and talk to them."""

import http.client
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, read to its end; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class EngineProcess:
    """An engine in a process of its own, on a free port; a context manager.

    Options are those of the server: `EngineProcess("--latency", "0.2")`.
    """

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.server", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = self._read_port()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def exit_code(self) -> int | None:
        """The process's exit status, None while it lives."""
        return self._process.poll()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def request(
        self, method: str, path: str, body: object = None, within: float = 30.0
    ) -> Reply:
        """Send one request on a connection of its own.

        Raises OSError or http.client.HTTPException where no answer comes.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, within)
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, headers, answer.read())
        finally:
            connection.close()

    def complete(self, prompt: str, within: float = 30.0, **fields: object) -> Reply:
        body = {"prompt": prompt} | fields
        return self.request("POST", "/v1/completions", body, within)

    def fault(self, **values: object) -> None:
        """Replace the fault; without values the engine is healthy again."""
        reply = self.request("POST", "/fault", values)
        if reply.status != 200:
            raise ValueError(reply.body.decode())

    def stats(self) -> Any:
        return self.request("GET", "/stats").json()

    def _read_port(self) -> int:
        # The line comes when the socket listens; a failed start ends the output.
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("listening on "):
                return int(line.rsplit(":", 1)[1])
        code = self._process.wait()
        raise RuntimeError(f"the engine ended with {code} before it listened")
