"""The webhook of [alerts], on real HTTP: who takes alerts, and who does not."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelserver.control.alerts import end_alert, raise_alert
from modelserver.control.hooks import AGAIN_MOST_SECONDS, call_again
from modelserver.fleet.file import read_fleet
from modelserver.fleet.sections import AlertsSection
from modelserver.store import Store
from modelserver.store.fleet.alerts import counts
from modelserver.store.fleet.unsent_alerts import read_unsent
from tests.support.alerts import alert_settings
from tests.support.processes import ValkeyProcess, eventually


class Listener(BaseHTTPRequestHandler):
    """Notes what is posted to it, or sends it elsewhere, or refuses it."""

    heard: list[tuple[str, dict[str, object]]]
    #: The paths that were asked for.
    asked: list[str]
    redirect: tuple[int, str] | None = None
    #: What it answers while it is down.
    down = b""
    #: Whether that comes byte by byte.
    drips = False

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def do_POST(self) -> None:
        self.asked.append(self.path)
        if self.redirect is not None:
            code, url = self.redirect
            self.send_response(code)
            self.send_header("Location", url)
            self.end_headers()
            return
        for byte in self.down if self.drips else ():
            self.wfile.write(bytes([byte]))
            time.sleep(0.5)
        if self.down:
            self.wfile.write(self.down)
            return
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.heard.append((str(self.headers["Authorization"]), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def listener() -> Iterator[tuple[str, type[Listener]]]:
    noting = type("Noting", (Listener,), {"heard": [], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), noting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", noting
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_gets_the_alert_and_the_token_of_its_variable(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    listener: tuple[str, type[Listener]],
    monkeypatch: pytest.MonkeyPatch,
):
    url, noting = listener
    # As a file of a secret ends.
    monkeypatch.setenv("ALERTS_TOKEN", "secret\n")
    # Nothing listens there, and nothing on this host is asked through it.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    section = AlertsSection(webhook=url, webhook_token_env="ALERTS_TOKEN")
    settings = alert_settings(valkey, tmp_path, section)
    raise_alert(store, settings, "m", "m is down", 100.0, "down")
    eventually(lambda: noting.heard)
    ((token, body),) = noting.heard
    assert token == "Bearer secret"
    assert (body["about"], body["kind"]) == ("m", "down")


@pytest.mark.parametrize("down", [b"HTTP/1.0 503 Down\r\n\r\n", b"not HTTP\r\n"])
def test_a_webhook_that_was_down_gets_its_alerts_later_and_once(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    listener: tuple[str, type[Listener]],
    down: bytes,
):
    url, noting = listener
    noting.down = down
    settings = alert_settings(valkey, tmp_path, AlertsSection(webhook=url))
    began = store.now()
    raise_alert(store, settings, "m", "m is down", began, "down")
    end_alert(store, settings, "m", "m is back", began, "down")
    eventually(lambda: counts(store).get("hook_failed") == 1)
    assert len(read_unsent(store)) == 2
    noting.down = b""
    call_again(store, settings, began)  # Too early.
    later = store.now() + AGAIN_MOST_SECONDS
    for left in (1, 0):
        call_again(store, settings, later)
        call_again(store, settings, later)
        eventually(lambda left=left: len(read_unsent(store)) == left)
    # An end that came first would leave what pages people with a trouble for ever.
    told = [str(body["event"]) for _, body in noting.heard]
    assert told == ["raised", "ended"]
    assert len(noting.asked) == 3


def test_a_webhook_that_answers_byte_by_byte_has_its_time_and_no_more(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    listener: tuple[str, type[Listener]],
    caplog: pytest.LogCaptureFixture,
):
    url, noting = listener
    noting.down, noting.drips = b"HTTP/1.0 200 Well\r\n\r\n", True
    settings = alert_settings(
        valkey, tmp_path, AlertsSection(webhook=url, hook_seconds=2.0)
    )
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: "took longer than 2 s" in caplog.text, within=6)
    assert len(read_unsent(store)) == 1


@pytest.mark.parametrize(
    "url", ["http://a..b/", "http://[::1/", "http://127.0.0.1:99999/"]
)
def test_a_webhook_that_no_host_can_have_is_a_failure_as_others(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    url: str,
):
    settings = alert_settings(valkey, tmp_path, AlertsSection(webhook=url))
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: "the hook of [alerts] failed" in caplog.text)
    assert "is no URL that can be asked; correct it" in caplog.text
    assert url not in caplog.text
    assert len(read_unsent(store)) == 1


def test_a_webhook_that_takes_an_alert_is_not_read_to_its_end(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    listener: tuple[str, type[Listener]],
):
    url, noting = listener
    # As a page of so many bytes, which never come.
    noting.down = b"HTTP/1.0 200 Well\r\nContent-Length: 1000000000000\r\n\r\n"
    settings = alert_settings(valkey, tmp_path, AlertsSection(webhook=url))
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: noting.asked and not read_unsent(store))
    assert "hook_failed" not in counts(store)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.0 410 Gone from /secret\r\n\r\n", "answers HTTP 410; see what"),
        (b"HTTP/1.0 502 Bad\r\n\r\n", "answers HTTP 502; see what"),
        (b"HTTP/1.0 307 No\r\nLocation: /secret\r\n\r\n", "is redirected (HTTP 307)"),
        (b"POST /secret HTTP/1.1\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.0 200 Well\r\nX: " + b"secret" * 9999, "does not speak HTTP"),
        (b"HTTP/1.0 200", "breaks off"),
    ],
)
def test_what_is_said_of_a_webhook_shows_nothing_of_its_url(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    listener: tuple[str, type[Listener]],
    caplog: pytest.LogCaptureFixture,
    answer: bytes,
    told: str,
):
    url, noting = listener
    noting.down = answer
    settings = alert_settings(valkey, tmp_path, AlertsSection(webhook=f"{url}secret"))
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: told in caplog.text)
    assert "secret" not in caplog.text
    assert noting.asked == ["/secret"]


def test_a_webhook_that_cannot_be_reached_is_named_by_its_key(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    section = AlertsSection(webhook="https://127.0.0.1:9/secret")
    settings = alert_settings(valkey, tmp_path, section)
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: "the host of alerts.webhook cannot be reached" in caplog.text)
    assert "secret" not in caplog.text


def test_a_token_that_no_header_can_hold_is_a_failure_that_does_not_show_it(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setenv("ALERTS_TOKEN", "half\nsecret")
    section = AlertsSection(
        webhook="http://127.0.0.1:9/", webhook_token_env="ALERTS_TOKEN"
    )
    settings = alert_settings(valkey, tmp_path, section)
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: "ALERTS_TOKEN" in caplog.text)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_webhook_that_redirects_is_not_followed(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    listener: tuple[str, type[Listener]],
    caplog: pytest.LogCaptureFixture,
    code: int,
):
    url, noting = listener
    noting.redirect = (code, url + "inside")
    settings = alert_settings(valkey, tmp_path, AlertsSection(webhook=url))
    raise_alert(store, settings, "m", "m is down", 100.0, "down")
    eventually(lambda: "write the URL that takes the alerts" in caplog.text)
    assert noting.asked == ["/"]


def test_a_token_that_is_not_set_is_a_failure_that_names_it(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    section = AlertsSection(webhook="http://127.0.0.1:9/", webhook_token_env="NOT_SET")
    settings = alert_settings(valkey, tmp_path, section)
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: "NOT_SET" in caplog.text)


def test_a_webhook_that_is_no_url_is_refused_with_the_file(tmp_path: Path):
    path = tmp_path / "fleet.toml"
    path.write_text('[alerts]\nwebhook = "mail@example.org"\n')
    with pytest.raises(Exception, match=r"alerts\.webhook"):
        read_fleet(path)
