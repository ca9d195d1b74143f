"""``modelserver top``: frames that fit, and a real terminal that it draws on."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from modelserver.cli import cli
from modelserver.cli.top_frame import draw_frame
from modelserver.page.reading import FleetReader
from modelserver.store.runs.programs import ProgramRun, tell_program_run
from tests.support.fleet_records import WICKED, Records
from tests.support.fleets import CLI
from tests.support.processes import ROOT, ValkeyProcess, end, eventually

MODELS = ("chat", "vectors", "absent")


@pytest.fixture
def records(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Records]:
    records = Records.open(tmp_path, valkey.url, MODELS)
    records.write(engines=40, runs=12)
    yield records
    records.store.client.close()


def drawn(records: Records, width: int, height: int | None) -> list[str]:
    """The lines of a frame."""
    view = FleetReader(records.settings).read(records.store)
    screen = Console(width=width, file=io.StringIO(), record=True)
    screen.print(draw_frame(view, width, height))
    return screen.export_text().splitlines()


def test_frames_fit_their_terminal_and_show_trouble_first(records: Records):
    for width, height in ((80, 24), (200, 60), (120, 30)):
        lines = drawn(records, width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        assert "39 of 40 engines ready" in lines[0]
        for told in ("absent", "vectors-0  STARTING", "XID 79", "run0000", "more"):
            assert re.sub(" +", " ", told) in re.sub(" +", " ", text), (width, text)
    every = "\n".join(drawn(records, 200, None))
    assert "more" not in every
    assert WICKED in every
    assert all(f"chat-{number} " in every for number in range(20))


def test_notes_can_be_read_where_columns_have_to_go_for_them(records: Records):
    for width in (40, 60, 80):
        lines = drawn(records, width, 40)
        assert max(map(len, lines)) <= width
        heads = [line for line in lines if line.startswith(("MODEL", "ENGINE", "RUN"))]
        assert all("…" not in head for head in heads), heads
        (starting,) = (line for line in lines if "STARTING" in line)
        assert "loading weights" in starting, lines
        assert any("no ready engine; 1" in line for line in lines), lines


def test_runs_of_programs_are_shown_first_while_they_go_on(records: Records):
    now = records.store.now()
    run = ProgramRun("map-1", "prompts", 80, 20, began_at=now, told_at=now)
    tell_program_run(records.store, run)
    lines = drawn(records, 120, 60)
    place = next(n for n, line in enumerate(lines) if line.startswith("RUN"))
    assert lines[place + 1].split()[:2] == ["map-1", "running"]
    assert "25.0%" in lines[place + 1]


@dataclass
class Terminal:
    """A command in a terminal of its own."""

    process: "subprocess.Popen[bytes]"
    descriptor: int
    text: str = ""

    def press(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def shows(self, told: str) -> bool:
        """Whether this was drawn since the last time that something was looked for."""
        with suppress(OSError):  # A terminal whose last program has ended.
            while select.select([self.descriptor], [], [], 0)[0]:
                self.text += os.read(self.descriptor, 65_536).decode(errors="replace")
        place = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.text).find(told)
        if place >= 0:
            self.text = ""
        return place >= 0

    def ends(self) -> int | None:
        """Its exit status; what it draws meanwhile is read, or it could not end."""
        self.shows("")
        return self.process.poll()


@contextmanager
def open_top(records: Records) -> Iterator[Terminal]:
    """``modelserver top`` in a terminal of 80 columns and 24 lines."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [*CLI, "top"],
        cwd=ROOT,
        env={**os.environ, **records.environment, **shown},
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    try:
        yield Terminal(process, ours)
    finally:
        end(process)
        os.close(ours)


def test_a_terminal_shows_the_fleet_until_q(valkey: ValkeyProcess, records: Records):
    queue = records.store.keys.queue("absent")[0]
    with open_top(records) as terminal:
        eventually(lambda: terminal.shows("no ready engine; 120 wait"))
        records.store.client.lpush(queue, "{}", "{}", "{}")
        eventually(lambda: terminal.shows("no ready engine; 123 wait"))
        valkey.stop()
        eventually(lambda: terminal.shows("old: "))
        terminal.press(b"q")
        assert eventually(lambda: terminal.ends() is not None)
        assert terminal.process.returncode == 0


def test_ctrl_c_ends_it(records: Records):
    with open_top(records) as terminal:
        eventually(lambda: terminal.shows("engines ready"))
        terminal.press(b"\x03")
        assert eventually(lambda: terminal.ends() is not None)
        assert terminal.process.returncode == 0


def test_without_a_terminal_one_frame_is_printed(records: Records):
    done = CliRunner(env=records.environment).invoke(cli, ["top"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("engines ready") == 1
    assert "chat-19" in done.stdout
