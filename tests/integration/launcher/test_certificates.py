"""An authority that only this system's store knows is enough for uv."""

import http.server
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from launcher.environments.children import UV_CERTIFICATES, child_environment
from tests.support.secure_redis import Authority

#: Runs a command that sees another file of authorities than everybody else.
_WITH_BUNDLE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
STORE = os.path.realpath(ssl.get_default_verify_paths().cafile or "")
#: Variables that would name the authorities past the system's store.
_OWN = ("SSL_CERT_FILE", "SSL_CERT_DIR", *UV_CERTIFICATES)


def bundled(bundle: Path, *argv: str, **options: object) -> tuple[int, str]:
    """The exit code and output of a command for which ``bundle`` is the system's."""
    kept = {name: value for name, value in os.environ.items() if name not in _OWN}
    environment = options.get("environment", child_environment)
    assert callable(environment)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", _WITH_BUNDLE, "sh", str(bundle), STORE, *argv],
        env=environment(kept, {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


class Index(http.server.BaseHTTPRequestHandler):
    """A package index that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def index(authority: Authority) -> Iterator[str]:
    """An index with a certificate of the authority."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Index)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("index"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


def test_uv_trusts_an_authority_of_the_systems_store(
    tmp_path: Path, authority: Authority, index: str
) -> None:
    bundle = tmp_path / "bundle.crt"
    known = Path(STORE).read_text() if os.path.isfile(STORE) else ""
    bundle.write_text(known + authority.certificate.read_text())
    if not known or bundled(bundle, "true")[0]:
        pytest.skip("another store of certificates cannot be shown to a command here")
    argv = [find_uv_bin(), "pip", "install", "--dry-run", "--no-config", "--no-cache"]
    argv += ["--python", sys.executable, "--index-url", index, "no-such-package"]
    code, said = bundled(bundle, *argv)
    assert code != 0
    assert "was not found in the package registry" in said
    _, said = bundled(bundle, *argv, environment=lambda kept, _: kept)
    assert "UnknownIssuer" in said
