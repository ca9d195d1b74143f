"""What doctor says of what it was told, each with its remedy."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from modelserver.inventory import GIB, Disk, Host
from modelserver.operations.checks import check_models, check_waiting
from modelserver.operations.host_checks import (
    check_beat,
    check_engines,
    check_hosts,
    check_report,
)
from modelserver.operations.server_checks import check_keeping, check_memory
from modelserver.operations.status import FleetStatus, ModelStatus, QueueStatus, Status
from modelserver.operations.waiting import find_absent
from modelserver.policy.orders import DRAIN_HOST
from modelserver.store.messages.memory import Memory
from modelserver.store.server.keeping import ServerKeeping
from modelserver.values import EngineSpec, EngineState, Kind, NodePlace, Order, Wish

NEAR, FAR = "redis://127.0.0.1:6379/0", "redis://state-host:6379/0"


def status(steered_at: float = 0.0, **values: object) -> Status:
    usual: dict[str, object] = {"hosts": (), "engines": (), "workers": (), "models": ()}
    return Status(
        100.0,
        steered_at,
        "",
        FleetStatus(),
        control=QueueStatus("control", 0, 0),
        **{**usual, **values},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("looked_at", "late"), [(99.0, False), (91.0, False), (85.0, True), (0.0, True)]
)
def test_a_beat_that_is_dead_for_15_seconds_is_a_problem(looked_at: float, late: bool):
    check = check_beat(100.0, looked_at, steer_seconds=2.0)
    assert check.is_problem is late
    assert ("modelserver beat" in check.remedy) is late


def test_a_host_that_was_here_and_is_gone_is_named():
    checks = check_hosts(status(99.0, lost_hosts=("h2",)), 2.0)
    (check,) = [each for each in checks if each.what == "host h2"]
    assert check.is_problem
    assert "start it on h2: modelserver launcher" in check.remedy


def test_what_waits_for_a_silent_host_needs_no_gpus():
    """Whatever the sentence is."""
    waits = ModelStatus("m", Kind.COMPLETION, 0, 1, QueueStatus("m", 0, 0), "m-0: why")
    silent = replace(waits, absent_hosts=("h3",))
    assert "start the launcher of h3, or wait" in check_waiting(silent).remedy
    assert "free GPUs" in check_waiting(waits).remedy


def test_engines_wait_for_hosts_that_do_not_report_and_are_not_drained():
    spec = EngineSpec("m-0", "m", "h1", followers=(NodePlace("h2"), NodePlace("h3")))
    wishes = {"m-0": Wish(spec), "m-1": Wish(replace(spec, id="m-1", host="h4"))}
    drained = [Order(DRAIN_HOST, "h3", "ada", 0.0)]
    assert find_absent(wishes, ["m-0", "n-0"], {"h1"}, drained) == {"m": {"h2"}}


def test_a_model_that_is_down_is_a_problem():
    """Though each of its engines may be well: one that somebody drains is."""
    nothing = QueueStatus("m", 0, 0)
    down = ModelStatus(
        "m", Kind.COMPLETION, 0, 1, nothing, standing="down", because="no ready engine"
    )
    well = replace(down, standing="serving")
    waits = replace(down, waiting_for="m-0: needs 1 free GPU")
    assert list(check_models([well])) == []
    (check,) = check_models([down])
    assert check.is_problem
    assert (check.fact, check.remedy) == (
        "is down: no ready engine",
        "run: modelserver why m",
    )
    (check,) = check_models([waits])
    assert check.fact == "waits: m-0: needs 1 free GPU"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (
            "it needs X; put it there",
            "put it there",
        ),
        ("exit code 1", "see /m-0.log"),
    ],
)
def test_an_engine_that_does_not_start_has_the_remedy_of_its_reason(
    reason: str, remedy: str
):
    engine = SimpleNamespace(
        id="m-0",
        state=EngineState.FATAL,
        reason=reason,
        host="h",
        log="/m-0.log",
    )
    (check,) = check_engines(status(engines=(engine,)))
    assert check.fact == f"FATAL: {reason.split('; ')[0]}"
    assert check.remedy == f"on host h: {remedy}"


def test_what_a_launcher_fails_at_has_its_remedy():
    (check,) = check_report(Host("a", troubles=("engine m-0: it fails; do this",)))
    assert (check.what, check.fact) == ("host a", "engine m-0: it fails")
    assert check.remedy == "do this"


def test_disks_and_clocks_of_hosts():
    disks = (
        Disk("/run", GIB, 100 * GIB, "ext4"),
        Disk("/home", 50 * GIB, 100 * GIB, "nfs4"),
        Disk("/tmp", 50 * GIB, 100 * GIB, "xfs"),
    )
    full, remote, clock = check_report(Host("a", disks=disks, clock_ahead_seconds=12.0))
    assert (full.what, full.is_problem) == ("disk of /run on a", True)
    assert (remote.is_note, "on nfs4" in remote.fact) == (True, True)
    assert "12 s ahead of that of Redis" in clock.fact
    assert "set-ntp" in clock.remedy


@pytest.mark.parametrize(
    ("keeping", "url", "what", "remedy", "is_note"),
    [
        (ServerKeeping("its last save"), NEAR, "persistence", "disk", False),
        (ServerKeeping(saves=False), NEAR, "persistence", "appendonly", True),
        (ServerKeeping(eviction="allkeys-lru"), NEAR, "eviction", "noevict", False),
        (ServerKeeping(is_open=True), FAR, "password", "requirepass", False),
        (ServerKeeping(is_open=True), NEAR, "password", "requirepass", True),
    ],
)
def test_a_server_that_loses_drops_or_shows_what_it_has(
    keeping: ServerKeeping, url: str, what: str, remedy: str, is_note: bool
):
    (check,) = [each for each in check_keeping(keeping, url) if each.remedy]
    assert check.what == f"redis {what}"
    assert remedy in check.remedy
    assert check.is_note is is_note


def test_a_sound_server_has_no_remedy():
    assert not any(each.remedy for each in check_keeping(ServerKeeping(), FAR))


def test_memory_without_a_limit_is_a_note_and_short_memory_a_problem():
    assert check_memory(Memory(95, 100), "").is_problem
    assert check_memory(Memory(1, 100), "by 4 MiB").is_problem
    assert check_memory(Memory(1, 0), "").is_note
    assert not check_memory(Memory(1, 100), "").remedy
