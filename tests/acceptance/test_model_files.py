"""What a model on the hub says of itself is known before its engine starts."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher import environments
from launcher.engine_types import Place, adapter, model_config
from launcher.startup_log.weights import weights_of
from modelserver.errors import ConfigurationError
from modelserver.values import Kind, ModelSpec

pytestmark = pytest.mark.sglang

MODULES = [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
MEAN = {
    "config.json": {"model_type": "bert"},
    "modules.json": MODULES,
    "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
}
#: What the hub has, by model and file.
HUB = {
    "tests/mean": MEAN,
    "tests/cls": MEAN | {"1_Pooling/config.json": {"pooling_mode_cls_token": True}},
    "tests/bare": {"config.json": {"model_type": "qwen3"}},
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as gives a file."""

    def do_HEAD(self) -> None:
        model, _, file = self.path.strip("/").partition("/resolve/main/")
        content = HUB.get(model, {}).get(file)
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(200 if body else 404)
        if not body:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", f'"{abs(hash((model, file)))}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *about: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    """The hub's URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def launch(home: Path, hub: str, cache: Path, path: str) -> tuple[str, ...]:
    """The command for a model of the hub, after what comes before a start."""
    model = ModelSpec(
        name="m",
        kind=Kind.EMBEDDING,
        path=path,
        engine="sglang",
        gpus=1,
        interpreter=str(environments.interpreter("sglang-cpu", home)),
        environment={"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(cache)},
    )
    engine = adapter(model.engine)
    engine.prepare(model, home)
    return engine.launch(model, Place(30_000, (0,)), home).argv


def test_models_are_known_before_they_are_downloaded(
    home: Path, hub: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match='asks for the pooling "mean"'):
        launch(home, hub, tmp_path, "tests/mean")
    assert "--disable-radix-cache" in launch(home, hub, tmp_path, "tests/cls")
    assert "--disable-radix-cache" not in launch(home, hub, tmp_path, "tests/bare")
    # What is known is not asked for again.
    bare = weights_of("tests/bare", {"HF_HUB_CACHE": str(tmp_path)})
    assert model_config.knows_modules(bare)
