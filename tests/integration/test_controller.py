"""Control against a real server."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelserver.controller import steer
from modelserver.fleet import (
    Fleet,
    HostSection,
    ModelSection,
    RedisSection,
    RulesSection,
)
from modelserver.inventory import Host
from modelserver.model import (
    Desired,
    Engine,
    EngineSpec,
    EngineState,
    Relaunch,
    Want,
)
from modelserver.settings import Settings
from modelserver.store import Store, connect
from tests.support import ValkeyProcess

MODEL = ModelSection(name="m", path="/m", engine="sglang-cpu")
SPEC = EngineSpec("m-0", "m", "a")


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    fleet = Fleet(
        models=(MODEL,),
        redis=RedisSection(url=valkey.url),
        rules=RulesSection(hang_seconds=60),
    )
    return Settings(fleet, tmp_path / "fleet.toml", tmp_path, "a")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = connect(settings)
    yield store
    store.client.close()


def decisions(store: Store) -> list[dict[str, str]]:
    return [fields for _, fields in store.client.xrange(store.keys.decisions)]


def ready(store: Store, silent_seconds: float, incarnation: int = 1) -> None:
    """Have host a report its engine, and then itself, as a launcher does."""
    at = store.now() - silent_seconds
    engine = Engine(
        "m-0", "m", "a", EngineState.READY, incarnation, since=at, alive_at=at
    )
    store.report_engine(engine)
    store.report_host(Host("a"), lease_seconds=60)


def test_a_fleet_without_hosts_gets_no_wish(store: Store, settings: Settings):
    assert steer(store, settings, "one") == []
    assert store.desired() == {}


def test_why_an_engine_has_no_place_stands_in_the_store_as_long_as_it_is_so(
    store: Store, settings: Settings
):
    steer(store, settings, "one")
    assert store.waiting() == {
        "m-0": "no launcher reports; start one on each host with engines"
    }
    store.report_host(Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    assert store.waiting() == {}


def test_a_host_that_reports_gets_the_engine_and_the_decision_is_logged(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
):
    store.report_host(Host("a"), lease_seconds=60)
    with caplog.at_level(logging.INFO):
        assert steer(store, settings, "one") == [Want(SPEC)]
    assert store.desired()["m-0"].spec == SPEC
    (decision,) = decisions(store)
    assert float(decision.pop("at")) <= store.now()
    assert decision == {
        "engine": "m-0",
        "action": "want",
        "model": "m",
        "host": "a",
        "was_on": "",
        "live_hosts": "a",
    }
    assert "engine=m-0 want" in caplog.text


def test_a_settled_fleet_is_left_alone(store: Store, settings: Settings):
    store.report_host(Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    assert steer(store, settings, "two") == []
    assert len(decisions(store)) == 1


def test_engines_of_a_host_that_left_go_to_another(store: Store, settings: Settings):
    store.report_host(Host("a"), lease_seconds=60)
    steer(store, settings, "one")
    store.report_host(Host("b"), lease_seconds=60)
    store.leave("a")
    assert steer(store, settings, "one") == [Want(EngineSpec("m-0", "m", "b"))]


def test_hosts_that_the_fleet_does_not_list_get_nothing(
    store: Store, settings: Settings
):
    fleet = settings.fleet.model_copy(update={"hosts": (HostSection(name="b"),)})
    store.report_host(Host("a"), lease_seconds=60)
    listed = Settings(fleet, settings.fleet_file, settings.home, "a")
    assert steer(store, listed, "one") == []


def test_a_hung_engine_is_relaunched_once(store: Store, settings: Settings):
    ready(store, silent_seconds=5)
    steer(store, settings, "one")
    ready(store, silent_seconds=90, incarnation=2)
    (action,) = steer(store, settings, "one")
    assert isinstance(action, Relaunch)
    assert (action.engine, action.incarnation) == ("m-0", 2)
    assert steer(store, settings, "two") == []
    wish = store.desired()["m-0"]
    assert (wish.spec, wish.relaunch) == (SPEC, 2)
    assert wish.reason == "hung: no token for 90 s"
    decision = decisions(store)[-1]
    assert (decision["action"], decision["hang_seconds"]) == ("relaunch", "60")
    ready(store, silent_seconds=90, incarnation=3)
    assert len(steer(store, settings, "one")) == 1


def test_while_one_controls_another_does_nothing(store: Store, settings: Settings):
    store.report_host(Host("a"), lease_seconds=60)
    with store.control("other", 60) as token:
        assert token
        assert steer(store, settings, "one") == []
    assert steer(store, settings, "one") == [Want(SPEC)]


def test_many_at_once_decide_once(store: Store, settings: Settings):
    store.report_host(Host("a"), lease_seconds=60)
    with ThreadPoolExecutor(8) as pool:
        owners = [f"owner-{n}" for n in range(40)]
        done = list(pool.map(lambda owner: steer(store, settings, owner), owners))
    assert [actions for actions in done if actions] == [[Want(SPEC)]]
    assert len(decisions(store)) == 1


def test_a_controller_that_was_superseded_writes_nothing(store: Store):
    with store.control("slow", 60) as old:
        pass
    with store.control("next", 60):
        assert not store.wish(old, {"m-0": Desired(SPEC)})
    assert store.desired() == {}


def test_control_leaves_a_sign_that_it_looked(store: Store, settings: Settings):
    assert store.steered() == (0.0, "")
    steer(store, settings, "one")
    at, owner = store.steered()
    assert owner == "one"
    assert 0 < at <= store.now()
