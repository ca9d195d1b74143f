"""``modelserver weights pull`` against a hub that has had too many requests."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher import environments
from launcher.engine_types import Place, adapter
from modelserver.settings import load
from tests.support.processes import ROOT

pytestmark = pytest.mark.sglang

COMMIT = "a" * 40
FILES = {
    "config.json": json.dumps({"model_type": "qwen3"}).encode(),
    "model.safetensors": b"w" * 3_000_000,
    "pytorch_model.bin": b"the same weights once more",
}
MODEL = "tests/big"


class Hub(BaseHTTPRequestHandler):
    """The hub with one model; it refuses the first requests."""

    #: What was asked for.
    asked: list[str]
    #: How many requests are refused.
    refusals: int

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        if type(self).refusals > 0:
            type(self).refusals -= 1
            self._send(429, b"", {"Retry-After": "1"})
        elif self.path.startswith(f"/api/models/{MODEL}/tree/"):
            entries = [
                {"type": "file", "path": n, "size": len(b), "oid": n}
                for n, b in FILES.items()
            ]
            self._send(200, json.dumps(entries).encode(), {})
        elif self.path.startswith(f"/api/models/{MODEL}"):
            siblings = [{"rfilename": n, "size": len(b)} for n, b in FILES.items()]
            facts = {"id": MODEL, "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(facts).encode(), {})
        else:
            body = FILES[self.path.rpartition("/")[2]]
            etag = hashlib.sha256(body).hexdigest()
            self._send(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *about: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[type[Hub]]:
    """The class that answers for the hub, whose ``address`` is asked."""
    hub = type("OneHub", (Hub,), {"asked": [], "refusals": 4})
    with ThreadingHTTPServer(("127.0.0.1", 0), hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        yield hub
        server.shutdown()


def test_weights_are_fetched_once_and_engines_need_no_hub_then(
    home: Path, hub: type[Hub], tmp_path: Path
) -> None:
    address = hub.address  # type: ignore[attr-defined]
    (tmp_path / "fleet.toml").write_text(
        f'[[models]]\nname = "m"\npath = "{MODEL}"\nengine = "sglang-cpu"\n'
        f'environment = {{ HF_ENDPOINT = "{address}", HF_HOME = "{tmp_path}/hf" }}\n'
    )
    environ = {
        **os.environ,
        "MODELSERVER_FLEET": str(tmp_path / "fleet.toml"),
        "MODELSERVER_HOME": str(tmp_path / "home"),
        "MODELSERVER_ENGINES_HOME": str(home),
    }

    def pull() -> str:
        argv = [sys.executable, "-m", "modelserver.cli", "weights", "pull", "m"]
        done = subprocess.run(
            argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    model = load(environ).fleet.specs()[0]
    engine = adapter(model.engine)

    def is_offline() -> bool:
        launch = engine.launch(model, Place(30_000), home)
        return "HF_HUB_OFFLINE" in launch.environment

    assert environments.is_installed("sglang-cpu", home)
    assert not is_offline()
    said = pull()
    assert "429" in said
    assert "m: 2 files of tests/big" in said
    assert "m is complete" in said
    # What no engine loads beside safetensors is left there.
    assert not [each for each in hub.asked if "pytorch_model.bin" in each]
    assert is_offline()
    before = len(hub.asked)
    assert "m is complete" in pull()
    assert len(hub.asked) == before
