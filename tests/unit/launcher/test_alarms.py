"""When a launcher tells people that control is silent."""

import asyncio
import json
from pathlib import Path

import pytest

from launcher.alarms import (
    OUTAGE_FILE,
    Alarms,
    OutageNote,
    find_control_silence,
    follow_control,
)
from launcher.fleet_sync import FleetSync
from launcher.store_link import StoreLink, StoreView
from modelserver.control.applied_fleet import unknown
from modelserver.inventory import Host
from modelserver.settings import load
from modelserver.store.server.state import open_store
from tests.support.processes import eventually

#: Nobody listens there.
CLOSED = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("looked_at", "steer_seconds", "is_silent"),
    [(100.0, 2.0, False), (70.1, 2.0, False), (69.9, 2.0, True), (60.0, 10.0, False)],
)
def test_control_is_silent_after_half_a_minute_and_five_looks(
    looked_at: float, steer_seconds: float, is_silent: bool
):
    trouble = find_control_silence(looked_at, steer_seconds, now=100.0)
    assert (trouble is not None) is is_silent


def test_a_step_of_the_servers_clock_is_no_silence():
    first = follow_control(None, 5000.0, now=10.0)
    assert follow_control(first, 5000.0, now=45.0) == first
    for steered_at in (5002.0, 9000.0, 1000.0):
        assert follow_control(first, steered_at, now=12.0).seen_at == 12.0


def test_what_is_told_names_the_remedy():
    trouble = find_control_silence(10.0, 2.0, now=100.0)
    assert trouble is not None
    assert "control has not looked at the fleet for 90 s" in trouble.text
    assert "modelserver beat" in trouble.text


def say_by(folder: Path, sleeps: float = 0) -> tuple[FleetSync, StoreLink]:
    """A launcher's view of a fleet whose hook writes each alert into a file.

    It ``sleeps`` before it writes of a beginning.
    """
    fleet = folder / "fleet.toml"
    wait = f"grep -q raised {folder}/$$ && sleep {sleeps}"
    write = f"cat {folder}/$$ >> {folder}/told; echo >> {folder}/told"
    command = f"cat > {folder}/$$; {wait}; {write}"
    fleet.write_text(
        f'[redis]\nurl = "{CLOSED}"\n[alerts]\ncommand = ["sh", "-c", "{command}"]\n'
    )
    settings = load({"MODELSERVER_FLEET": str(fleet), "MODELSERVER_HOME": str(folder)})
    link = StoreLink(open_store(CLOSED, "test:", retries=0), Host("h1", pid=1), 1.0)
    return FleetSync(unknown(settings.fleet.redis), settings, link), link


def told(folder: Path) -> list[str]:
    lines = (
        (folder / "told").read_text().split("\n") if (folder / "told").exists() else []
    )
    return [json.loads(line)["event"] for line in lines if line]


def test_a_launcher_that_starts_while_redis_is_away_tells_the_end_of_the_outage(
    tmp_path: Path,
):
    sync, link = say_by(tmp_path)
    note = OutageNote(tmp_path / OUTAGE_FILE)
    answers = StoreView(steered_at=5.0, read_at=100.0)
    first = Alarms("h1", sync, link, note)
    for now in (10.0, 20.0, 50.0):
        first.note_outage("no route", now, wall_time=now)
    eventually(lambda: told(tmp_path) == ["raised"])
    second = Alarms("h1", sync, link, OutageNote(tmp_path / OUTAGE_FILE))
    second.note_outage("no route", 60.0, wall_time=60.0)
    second.note_outage("no route", 95.0, wall_time=95.0)
    asyncio.run(second.look(answers, 100.0))
    eventually(lambda: told(tmp_path) == ["raised", "ended"])
    assert note.read() is None
    # One that starts later has nothing to end, and tells the next outage.
    third = Alarms("h1", sync, link, note)
    asyncio.run(third.look(answers, 101.0))
    for now in (110.0, 150.0):
        third.note_outage("no route", now, wall_time=now)
    eventually(lambda: told(tmp_path) == ["raised", "ended", "raised"])


def test_the_end_of_an_outage_waits_for_hooks_that_are_at_its_beginning(
    tmp_path: Path,
):
    sync, link = say_by(tmp_path, sleeps=1)
    alarms = Alarms("h1", sync, link, OutageNote(tmp_path / OUTAGE_FILE))
    for now in (10.0, 45.0):
        alarms.note_outage("no route", now, wall_time=now)
    asyncio.run(alarms.look(StoreView(steered_at=5.0, read_at=46.0), 46.0))
    eventually(lambda: told(tmp_path))
    assert told(tmp_path) == ["raised"]
    asyncio.run(alarms.look(StoreView(steered_at=6.0, read_at=60.0), 60.0))
    eventually(lambda: told(tmp_path) == ["raised", "ended"])


@pytest.mark.parametrize("text", ["", "[]", '{"about": 1}', "no json"])
def test_a_damaged_note_of_an_outage_is_left_aside(tmp_path: Path, text: str):
    (tmp_path / OUTAGE_FILE).write_text(text)
    assert OutageNote(tmp_path / OUTAGE_FILE).read() is None
