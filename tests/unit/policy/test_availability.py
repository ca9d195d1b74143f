"""What a model's requests do when no engine of it serves."""

from dataclasses import replace
from typing import Any

import pytest

from modelserver.errors import ConfigurationError
from modelserver.fleet.file import make_fleet
from modelserver.inventory import Host
from modelserver.policy.availability import (
    ModelStanding,
    Outage,
    availability,
    from_json,
    observe,
    to_json,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    Wish,
)

NOW = 1000.0
MODEL = ModelSpec(
    "m", Kind.COMPLETION, "/m", "sglang", when_down="fallback", fallback="n"
)
ASLEEP = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", min_engines=0)


def snapshot(*states: EngineState, reason: str = "") -> Snapshot:
    engines = {
        f"m-{n}": EngineReport(f"m-{n}", "m", "h", state, reason=reason)
        for n, state in enumerate(states)
    }
    wishes = {name: Wish(EngineSpec(name, "m", "h")) for name in engines}
    return Snapshot((MODEL,), (), (Host("h"),), engines, wishes, {})


def test_one_ready_engine_is_enough() -> None:
    found = availability(MODEL, snapshot(EngineState.FATAL, EngineState.READY), NOW)
    assert (found.standing, found.then) == (ModelStanding.SERVING, "go")


def test_engines_without_a_worker_do_not_serve() -> None:
    seen = replace(snapshot(EngineState.READY), worker_hosts=("other",))
    outage = observe(Outage(), MODEL, seen, 0, NOW)
    assert outage.since == NOW
    found = availability(MODEL, seen, NOW, outage)
    assert found.standing is ModelStanding.WAITING
    assert "host h has no worker" in found.reason
    later = availability(MODEL, seen, NOW + 61, outage)
    assert (later.standing, later.then) == (ModelStanding.DOWN, "fallback")
    there = replace(seen, worker_hosts=("h", "other"))
    assert availability(MODEL, there, NOW).standing is ModelStanding.SERVING


def test_engines_that_operators_drain_do_not_serve() -> None:
    seen = snapshot(EngineState.READY)
    ((name, wish),) = seen.wishes.items()
    held = replace(wish, hold="drained by ada: new driver", drained=True)
    drained = replace(seen, wishes={name: held})
    outage = observe(Outage(), MODEL, drained, 0, NOW)
    assert outage.since == NOW
    found = availability(MODEL, drained, NOW + 61, outage)
    assert (found.standing, found.then) == (ModelStanding.DOWN, "fallback")
    assert found.reason.endswith(f"{name} is READY; drained by ada: new driver")
    host = replace(held, hold="host h is drained by ada")
    drained = replace(seen, wishes={name: host})
    why = "host h is drained by ada; no other launcher reports"
    assert availability(MODEL, drained, NOW, outage, why).reason.endswith(f"; {why}")
    # Control holds an engine while it looks whether it is slow.
    doubted = replace(seen, wishes={name: replace(wish, hold="slow: 4 times")})
    assert availability(MODEL, doubted, NOW).standing is ModelStanding.SERVING


def test_a_first_load_may_take_as_long_as_it_takes() -> None:
    found = availability(
        MODEL, snapshot(EngineState.STARTING), NOW, Outage(NOW - 900, False)
    )
    assert (found.standing, found.then) == (ModelStanding.STARTING, "wait")


def test_a_restart_has_its_grace() -> None:
    seen = snapshot(EngineState.BACKOFF, reason="out of memory")
    found = availability(MODEL, seen, NOW, Outage(NOW - 59, True))
    assert (found.standing, found.then) == (ModelStanding.STARTING, "wait")


def test_a_model_whose_attempts_all_failed_is_down_and_says_why() -> None:
    seen = snapshot(EngineState.FATAL, reason="out of memory")
    found = availability(MODEL, seen, NOW, Outage(NOW - 60, True))
    assert (found.standing, found.then, found.fallback) == (
        ModelStanding.DOWN,
        "fallback",
        "n",
    )
    assert found.reason == ("no ready engine for 60 s: m-0 is FATAL: out of memory")


def test_without_a_record_the_engines_own_times_tell_since_when_it_is_down() -> None:
    seen = snapshot(EngineState.FATAL, EngineState.FATAL)
    times = {"m-0": NOW - 300, "m-1": NOW - 200}
    engines = {k: replace(e, since=times[k]) for k, e in seen.engines.items()}
    found = availability(MODEL, replace(seen, engines=engines), NOW)
    assert (found.standing, found.since) == (ModelStanding.DOWN, NOW - 200)
    assert found.reason.startswith("no ready engine for 200 s")


def test_without_a_record_and_engines_nothing_is_down() -> None:
    assert availability(MODEL, snapshot(), NOW).standing is ModelStanding.WAITING


def test_the_next_attempt_of_one_that_failed_is_no_promise() -> None:
    seen = snapshot(EngineState.STARTING)
    found = availability(MODEL, seen, NOW, Outage(NOW - 60, True))
    assert found.standing is ModelStanding.DOWN


def test_a_model_without_a_gpu_waits_and_then_is_down() -> None:
    why = "m-0: needs 2 free GPUs"
    early = availability(MODEL, snapshot(), NOW, Outage(NOW - 10), why)
    late = availability(MODEL, snapshot(), NOW, Outage(NOW - 90), why)
    assert (early.standing, early.then) == (ModelStanding.WAITING, "wait")
    assert late.standing is ModelStanding.DOWN
    assert late.reason == f"no ready engine for 90 s: {why}"


def test_asleep_is_not_down() -> None:
    outage = observe(Outage(NOW - 500), ASLEEP, snapshot(), 0, NOW)
    found = availability(ASLEEP, snapshot(), NOW, outage)
    assert outage == Outage()
    assert (found.standing, found.then) == (ModelStanding.WAITING, "wait")


def test_an_outage_begins_with_the_first_look_and_ends_with_a_ready_engine() -> None:
    outage = observe(Outage(), MODEL, snapshot(EngineState.BACKOFF), 3, NOW)
    assert outage == Outage(NOW, failed=True)
    outage = observe(outage, MODEL, snapshot(EngineState.STARTING), 3, NOW + 9)
    assert outage == Outage(NOW, failed=True)
    assert from_json(to_json({"m": outage})) == {"m": outage}
    assert observe(outage, MODEL, snapshot(EngineState.READY), 3, NOW + 20) == Outage()


def test_a_server_clock_that_was_set_back_makes_no_outage_shorter_than_none() -> None:
    outage = observe(Outage(NOW + 3600), MODEL, snapshot(EngineState.BACKOFF), 3, NOW)
    assert outage.since == NOW


def test_a_model_that_shall_wait_waits_also_when_it_is_down() -> None:
    found = availability(ASLEEP, snapshot(), NOW, Outage(NOW - 90))
    assert (found.standing, found.then) == (ModelStanding.DOWN, "wait")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"when_down": "fallback"}, 'when_down "fallback" needs fallback'),
        ({"fallback": "m"}, 'model "m" cannot be its own fallback'),
        ({"when_down": "panic"}, "when_down"),
        ({"idle_seconds": 0}, "idle_seconds"),
    ],
)
def test_a_fleet_file_that_contradicts_itself_is_refused(
    keys: dict[str, Any], said: str
) -> None:
    values = {"name": "m", "engine": "command", "command": ["serve"], **keys}
    with pytest.raises(ConfigurationError) as refused:
        make_fleet("fleet.toml", {"models": [values]})
    assert said in str(refused.value)
