"""why, drain, pause and alerts as processes beside a real server."""

import json
from pathlib import Path

from modelserver.control.alerts import raise_alert
from modelserver.control.steer import steer
from modelserver.inventory import Host
from modelserver.operations.orders import relaunch
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.control import read_wishes
from modelserver.store.fleet.engines import report_engine
from modelserver.store.fleet.hosts import report_host
from modelserver.store.fleet.orders import orders
from modelserver.store.scripts.state import LOCK
from modelserver.values import EngineReport, EngineState
from tests.integration.cli.test_commands import (
    folder,
    report,
    run,
    settings,
    store,
    work,
)

__all__ = ["folder", "settings", "store"]


def ready(store: Store, silent_seconds: float = 0.0, incarnation: int = 1) -> None:
    """Have host a report the engine waits-0, as a launcher does."""
    at = store.now() - silent_seconds
    state = EngineState.READY
    report_engine(
        store,
        EngineReport(
            "waits-0", "waits", "a", state, incarnation, since=at, alive_at=at
        ),
    )
    live(store)


def live(store: Store) -> None:
    """Have host a report itself; no launcher is there that would do so again."""
    report_host(store, Host("a", pid=7), lease_seconds=3_600)


def hung(store: Store, settings: Settings) -> None:
    """An engine that was placed, got ready, hung and is relaunched."""
    live(store)
    steer(store, settings, "one")
    ready(store)
    steer(store, settings, "one")
    ready(store, silent_seconds=90, incarnation=2)
    work(store, {"waits-0": [3, 80.0, 85.0]})
    steer(store, settings, "one")
    steer(store, settings, "one")


def test_why_tells_an_engines_standing_and_decisions_newest_last(
    folder: Path, store: Store, settings: Settings
):
    hung(store, settings)
    store.client.lpush(store.keys.queue("waits")[0], "one", "two")
    done = run(folder, "why", "waits-0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "waits-0 (waits on host a) is READY since" in done.stdout
    assert "in flight   3 of" in done.stdout
    assert "backlog     2 requests of waits wait" in done.stdout
    lines = done.stdout.partition("Decisions, newest last:\n")[2].splitlines()
    assert lines[0].endswith("waits-0 wanted on host a")
    told = next(line for line in lines if "relaunched" in line)
    assert "incarnation 2 of waits-0 relaunched: hung: no token for 9" in told
    figures = lines[lines.index(told) + 1]
    assert "last token 9" in figures
    assert "hang seconds 60" in figures
    assert "inflight 3" in figures


def test_why_says_whether_the_same_would_be_decided_today(
    folder: Path, store: Store, settings: Settings
):
    hung(store, settings)
    lines = run(folder, "why", "waits-0", "--replay").stdout.splitlines()
    assert sum(line.strip() == "today: the same" for line in lines) >= 2
    store.client.delete(store.keys.snapshots)
    shown = run(folder, "why", "waits-0", "--replay").stdout
    assert "what it was made from is kept no longer" in shown


def test_why_tells_where_a_models_engines_are_or_why_they_are_not(
    folder: Path, store: Store, settings: Settings
):
    steer(store, settings, "one")
    shown = run(folder, "why", "waits").stdout
    assert "waits (completion) has 0 ready of 0 wanted engines" in shown
    assert "standing    waiting: waits-0 waits: no launcher reports" in shown
    hung(store, settings)
    done = run(folder, "why", "waits")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout
    assert "waits-0     READY on a" in shown
    assert "relaunched: hung" in shown


def test_why_of_something_unknown_names_what_there_is(folder: Path, store: Store):
    report(store, "fast-0", "fast", "http://127.0.0.1:9")
    done = run(folder, "why", "slow")
    assert done.returncode == 1
    assert done.stderr == (
        "modelserver: there is no engine, model or host slow; there are: fast, "
        "vectors, waits, fast-0, a\n"
    )


def test_drain_holds_an_engine_until_undrain(
    folder: Path, store: Store, settings: Settings
):
    live(store)
    steer(store, settings, "one")
    ready(store)
    steer(store, settings, "one")
    done = run(folder, "drain", "waits-0", "--reason", "new driver")
    assert done.stdout == (
        "waits-0 gets nothing new and finishes the 0 that it has; `modelserver "
        "undrain waits-0` ends that\n"
        "No other engine serves waits: its requests wait\n"
    )
    for _ in range(3):
        steer(store, settings, "one")
        hold = read_wishes(store)["waits-0"].hold
        assert hold.startswith("drained by ")
        assert hold.endswith(": new driver")
    assert "is drained by" in run(folder, "status").stdout
    shown = run(folder, "why", "waits-0").stdout
    assert "hold        drained by" in shown
    assert "waits-0 gets nothing new: drained by" in shown
    assert run(folder, "undrain", "waits-0").stdout == "waits-0 serves again\n"
    steer(store, settings, "one")
    assert read_wishes(store)["waits-0"].hold == ""


def test_undrain_of_what_is_not_drained_says_so(folder: Path, store: Store):
    done = run(folder, "undrain", "waits-0")
    assert done.returncode == 1
    assert "there is no drain of waits-0; nothing changed" in done.stderr


def test_what_is_paused_is_left_alone_until_resume(
    folder: Path, store: Store, settings: Settings
):
    live(store)
    steer(store, settings, "one")
    began = store.now()
    done = run(folder, "pause", "waits", "--for", "2h", "--reason", "a new disk")
    assert done.returncode == 0
    assert "Control keeps its hands off waits until 20" in done.stdout
    ready(store, silent_seconds=90)
    assert steer(store, settings, "one") == []
    (order,) = orders(store)
    assert began + 7_200 <= order.until <= store.now() + 7_200
    shown = run(folder, "status", "--json").stdout
    assert json.loads(shown)["orders"][0]["target"] == "waits"
    assert "pause waits, by" in run(folder, "pause").stdout
    assert run(folder, "resume", "waits").returncode == 0
    assert len(steer(store, settings, "one")) >= 1
    assert run(folder, "pause").stdout == "Nothing is drained or paused.\n"


def test_a_duration_that_is_none_is_refused(folder: Path, store: Store):
    done = run(folder, "pause", "waits", "--for", "soon")
    assert (done.returncode, orders(store)) == (1, ())
    assert '"soon" is no duration; say 90s, 30m, 2h or 1d' in done.stderr


def test_alerts_are_listed_shown_in_status_and_closed(
    folder: Path, store: Store, settings: Settings
):
    assert run(folder, "alerts").stdout == "There are no alerts.\n"
    raise_alert(store, settings, "fast-0", "fast-0 is slow: 2.1x", store.now())
    shown = run(folder, "alerts").stdout
    assert "open" in shown
    assert "fast-0 is slow: 2.1x" in shown
    assert "1 alert stands: modelserver alerts" in run(folder, "status").stdout
    found = json.loads(run(folder, "alerts", "--json").stdout)
    assert found["open"][0]["about"] == "fast-0"
    assert found["counts"] == {"raised": 1}
    done = run(folder, "alerts", "--close", "fast-0")
    assert done.stdout == "fast-0: closed: fast-0 is slow: 2.1x\n"
    assert json.loads(run(folder, "status", "--json").stdout)["alerts"] == 0


def test_a_relaunch_waits_until_control_has_looked(
    store: Store, settings: Settings, folder: Path
):
    live(store)
    steer(store, settings, "one")
    ready(store)
    store.run_script(LOCK, [store.keys.lock, store.keys.token], "control", 700)
    assert relaunch(store, "waits-0", "ann") == 1
    assert read_wishes(store)["waits-0"].reason == "asked for by ann"
