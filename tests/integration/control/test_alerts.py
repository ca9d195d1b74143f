"""Alerts on a real server, with real hooks."""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelserver.control.alerts import end_alert, raise_alert
from modelserver.control.hooks import AGAIN_AT_ONCE, AGAIN_MOST_SECONDS, call_again
from modelserver.control.silent_hosts import follow_workers
from modelserver.control.steer import read_snapshot, steer
from modelserver.fleet.file import Fleet, read_fleet
from modelserver.fleet.sections import AlertsSection, ModelSection, RedisSection
from modelserver.inventory import Host
from modelserver.operations.host_checks import find_no_worker
from modelserver.operations.status import read_status
from modelserver.policy.placement.silent_hosts import HostSilences
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.alerts import (
    OPEN_SECONDS,
    AlertRecord,
    counts,
    last_alerts,
    open_alerts,
)
from modelserver.store.fleet.availability import standings
from modelserver.store.fleet.engines import report_engine
from modelserver.store.fleet.hosts import read_hosts, report_host
from modelserver.store.fleet.unsent_alerts import UnsentAlert, keep_unsent, read_unsent
from modelserver.values import EngineReport, EngineState
from tests.support.processes import ValkeyProcess, eventually

#: Reads its standard input into a file beside which it may sleep or fail.
HOOK = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())"


def settings_of(
    valkey: ValkeyProcess, folder: Path, alerts: AlertsSection, *models: ModelSection
) -> Settings:
    fleet = Fleet(models=models, redis=RedisSection(url=valkey.url), alerts=alerts)
    return Settings(fleet, folder / "fleet.toml", folder, "a")


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    return settings_of(valkey, tmp_path, AlertsSection())


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = connect(settings)
    yield store
    store.client.close()


def test_an_alert_is_logged_kept_and_counted(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
):
    assert raise_alert(store, settings, "m-0", "m-0 is slow: 2.1x", 100.0)
    (alert,) = last_alerts(store, 10)
    assert (alert.about, alert.text, alert.at) == ("m-0", "m-0 is slow: 2.1x", 100.0)
    assert counts(store) == {"raised": 1}
    assert "alert about=m-0 m-0 is slow: 2.1x" in caplog.text


def test_the_same_alert_with_other_figures_is_told_once(
    store: Store, settings: Settings
):
    now = store.now()
    assert raise_alert(store, settings, "m-0", "slow: 2.1x of 40", now)
    assert not raise_alert(store, settings, "m-0", "slow: 2.2x of 41", now + 10)
    assert raise_alert(store, settings, "m-1", "slow: 2.1x of 40", now)
    assert raise_alert(store, settings, "m-0", "fails at requests", now)
    assert counts(store) == {"raised": 3, "repeated": 1}
    assert len(open_alerts(store)) == 2


def test_what_is_over_is_told_and_may_begin_again(store: Store, settings: Settings):
    now = store.now()
    assert not end_alert(store, settings, "m", "m is back", now, "down")
    assert raise_alert(store, settings, "m", "m is down", now, "down")
    assert end_alert(store, settings, "m", "m is back", now + 5, "down")
    assert open_alerts(store) == ()
    assert raise_alert(store, settings, "m", "m is down", now + 9, "down")
    events = [(each.event, each.text) for each in last_alerts(store, 10)]
    assert events == [
        ("raised", "m is down"),
        ("ended", "m is back"),
        ("raised", "m is down"),
    ]


def test_a_command_gets_the_alert_on_its_standard_input(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    told = tmp_path / "told.json"
    section = AlertsSection(command=(sys.executable, "-c", HOOK, str(told)))
    settings = settings_of(valkey, tmp_path, section)
    raise_alert(store, settings, "m-0", "it is slow", 100.0)
    eventually(lambda: told.exists() and told.read_text())
    assert json.loads(told.read_text()) == {
        "about": "m-0",
        "text": "it is slow",
        "at": 100.0,
        "kind": "",
        "event": "raised",
        "since": 100.0,
    }


def test_a_hook_that_hangs_holds_nobody_up_and_is_ended(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    sleeps = (sys.executable, "-c", "import time; time.sleep(600)")
    section = AlertsSection(command=sleeps, hook_seconds=2.0)
    settings = settings_of(valkey, tmp_path, section)
    began = time.monotonic()
    raise_alert(store, settings, "m-0", "it is slow", 100.0)
    assert time.monotonic() - began < 1.5
    eventually(lambda: "timed out after 2.0 seconds" in caplog.text)


def test_a_hook_that_fails_is_logged_once_and_counted(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    section = AlertsSection(command=(str(tmp_path / "missing"),))
    settings = settings_of(valkey, tmp_path, section)
    for engine in ("m-0", "m-1", "m-2"):
        raise_alert(store, settings, engine, "it is slow", 100.0)
    eventually(lambda: counts(store).get("hook_failed") == 3)
    eventually(lambda: caplog.text.count("the hook of [alerts] failed") == 1)
    assert len(last_alerts(store, 10)) == 3


class Listener(BaseHTTPRequestHandler):
    """Notes what is posted to it, or sends it elsewhere, or refuses it."""

    heard: list[tuple[str, dict[str, object]]]
    #: The paths that were asked for.
    asked: list[str]
    redirect: tuple[int, str] | None = None
    #: What it answers while it is down.
    down = b""

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
    monkeypatch.setenv("ALERTS_TOKEN", "secret")
    # Nothing listens there, and nothing on this host is asked through it.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    section = AlertsSection(webhook=url, webhook_token_env="ALERTS_TOKEN")
    settings = settings_of(valkey, tmp_path, section)
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
    settings = settings_of(valkey, tmp_path, AlertsSection(webhook=url))
    began = store.now()
    raise_alert(store, settings, "m", "m is down", began, "down")
    end_alert(store, settings, "m", "m is back", began, "down")
    eventually(lambda: len(read_unsent(store)) == 2)
    noting.down = b""
    call_again(store, settings, began)  # Too early.
    later = store.now() + AGAIN_MOST_SECONDS
    call_again(store, settings, later)
    call_again(store, settings, later)
    eventually(lambda: not read_unsent(store))
    told = [str(body["event"]) for _, body in noting.heard]
    assert sorted(told) == ["ended", "raised"]
    assert len(noting.asked) == 4


def test_what_a_hook_did_not_take_is_given_up_with_the_hook_or_after_a_day(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    now = store.now()
    for key, since in (("old", now - OPEN_SECONDS - 1), ("new", now)):
        alert = AlertRecord("m", "m is down", since)
        keep_unsent(store, key, UnsentAlert("webhook", alert, due=now + 60))
    section = AlertsSection(webhook="http://127.0.0.1:9/")
    call_again(store, settings_of(valkey, tmp_path, section), now)
    assert list(read_unsent(store)) == ["new"]
    call_again(store, settings_of(valkey, tmp_path, AlertsSection()), now)
    assert not read_unsent(store)


def test_after_a_long_outage_hooks_get_the_oldest_first_and_few_at_once(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    now = store.now()
    for number in reversed(range(2 * AGAIN_AT_ONCE)):
        alert = AlertRecord("m", "m is down", now - 60 + number)
        keep_unsent(store, f"{number:02}", UnsentAlert("webhook", alert, tries=1))
    # Nobody listens there.
    section = AlertsSection(webhook="http://127.0.0.1:9/")
    call_again(store, settings_of(valkey, tmp_path, section), now)
    called = [key for key, each in read_unsent(store).items() if each.due > now]
    assert sorted(called) == [f"{number:02}" for number in range(AGAIN_AT_ONCE)]


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
    settings = settings_of(valkey, tmp_path, AlertsSection(webhook=url))
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
    settings = settings_of(valkey, tmp_path, section)
    raise_alert(store, settings, "m", "m is down", 100.0)
    eventually(lambda: "NOT_SET" in caplog.text)


def test_a_webhook_that_is_no_url_is_refused_with_the_file(tmp_path: Path):
    path = tmp_path / "fleet.toml"
    path.write_text('[alerts]\nwebhook = "mail@example.org"\n')
    with pytest.raises(Exception, match=r"alerts\.webhook"):
        read_fleet(path)


def ready(store: Store) -> None:
    """Have host a report a ready engine of m, as a launcher does."""
    now = store.now()
    report_engine(
        store,
        EngineReport("m-0", "m", "a", EngineState.READY, 1, since=now, alive_at=now),
    )
    report_host(store, Host("a"), lease_seconds=60)


def test_a_model_that_has_nothing_left_is_told_and_its_return_too(
    valkey: ValkeyProcess,
    tmp_path: Path,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    model = ModelSection(
        name="m",
        path="/m",
        engine="sglang-cpu",
        when_down="fail",
        down_after_seconds=0,
    )
    settings = settings_of(valkey, tmp_path, AlertsSection(), model)
    with caplog.at_level(logging.WARNING):
        steer(store, settings, "one")
        steer(store, settings, "one")
    (alert,) = open_alerts(store)
    assert (alert.about, alert.kind) == ("m", "down")
    assert alert.text.startswith("m is down: no ready engine for 0 s")
    assert "no launcher reports" in alert.text
    assert alert.text.endswith("; its requests fail")
    assert standings(store)["m"]["then"] == "fail"
    assert len(last_alerts(store, 10)) == 1
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    ready(store)
    steer(store, settings, "one")
    assert open_alerts(store) == ()
    assert last_alerts(store, 1)[0].text == "m is back: 1 ready"
    assert standings(store)["m"]["then"] == "go"


def test_a_model_that_leaves_the_fleet_is_down_no_longer(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    model = ModelSection(name="m", path="/m", engine="sglang-cpu", down_after_seconds=0)
    steer(store, settings_of(valkey, tmp_path, AlertsSection(), model), "one")
    assert len(open_alerts(store)) == 1
    steer(store, settings_of(valkey, tmp_path, AlertsSection()), "one")
    assert open_alerts(store) == ()
    assert standings(store) == {}


def test_a_host_whose_worker_ended_is_told_and_named(
    valkey: ValkeyProcess, tmp_path: Path, store: Store
):
    model = ModelSection(name="m", path="/m", engine="sglang-cpu")
    settings = settings_of(valkey, tmp_path, AlertsSection(), model)
    report_host(store, Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    ready(store)
    report = {"node": "w", "host": "b", "pid": 1, "held": 0, "loads": {}}
    store.client.sadd(store.keys.workers, "w")
    store.client.set(store.keys.worker("w"), json.dumps(report))
    steer(store, settings, "one")
    assert "host a has no worker" in standings(store)["m"]["reason"]
    status = read_status(store, settings)
    (check,) = find_no_worker(status, status.hosts[0])
    assert (check.what, "modelserver worker" in check.remedy) == ("host a", True)

    def look(worker: str, since: float) -> None:
        snapshot = replace(
            read_snapshot(store, settings, read_hosts(store)), worker_hosts=(worker,)
        )
        silences = HostSilences(without_worker={"a": since})
        follow_workers(store, settings, snapshot, silences, store.now())

    look("b", store.now() - 30)
    assert open_alerts(store) == ()
    look("b", store.now() - 50)
    (alert,) = open_alerts(store)
    assert (alert.about, alert.kind) == ("a", "worker")
    look("a", store.now() - 60)
    assert open_alerts(store) == ()
