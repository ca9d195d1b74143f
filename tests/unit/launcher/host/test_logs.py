"""Logs that are set aside while programs write to them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from launcher.host.logs import Logs, bound, find_moved, read_tail
from launcher.startup_log.progress import StartProgress
from launcher.startup_log.weights import Weights
from tests.support.processes import end, eventually

#: Writes lines to its standard output until it is told to end.
WRITER = """
import sys
for line in sys.stdin:
    sys.stdout.write(line)
    sys.stdout.flush()
"""


def test_a_program_goes_on_at_the_beginning_of_its_log(tmp_path: Path):
    log = tmp_path / "m-0.log"
    with log.open("ab") as output:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER],
            stdin=subprocess.PIPE,
            stdout=output,
            text=True,
        )

    def write(text: str) -> None:
        assert writer.stdin
        before = log.stat().st_size
        writer.stdin.write(text)
        writer.stdin.flush()
        eventually(lambda: log.stat().st_size >= before + len(text))

    try:
        write("x" * 5000 + "\n")
        assert not bound(log, limit_bytes=10_000)
        write("y" * 6000 + "\n")
        assert bound(log, limit_bytes=10_000)
        assert log.stat().st_size == 0
        assert log.with_name("m-0.log.1").stat().st_size == 11_002
        write("after\n")
        assert log.read_text() == "after\n"
        # What a start has written is found, though it began further on.
        assert read_tail(log, 7000) == "after\n"
    finally:
        assert writer.stdin
        writer.stdin.close()
        end(writer)


def test_of_a_log_that_nobody_bounded_the_end_is_kept(tmp_path: Path):
    log = tmp_path / "m-0.log"
    log.write_text("x" * 99_000 + "the end")
    assert bound(log, limit_bytes=10_000)
    aside = log.with_name("m-0.log.1").read_text()
    assert aside.endswith("the end")
    assert len(aside) == 20_000


def test_progress_goes_on_after_a_log_was_set_aside(tmp_path: Path):
    log = tmp_path / "m-0.log"
    log.write_text("-" * 500)
    progress = StartProgress(log, 500, Weights(""))
    log.write_text("[2026-11-22 20:50:16] Load weight begin. avail mem=18.78 GB\n")
    progress.look()
    assert progress.doing == "loading weights"


def test_a_log_that_cannot_be_copied_is_cut_all_the_same(tmp_path: Path):
    log = tmp_path / "m-0.log"
    log.write_bytes(b"x" * 100)
    (tmp_path / "m-0.log.1").mkdir()
    assert bound(log, limit_bytes=10)
    assert log.stat().st_size == 0


def test_a_log_that_is_not_there_is_left(tmp_path: Path):
    assert not bound(tmp_path / "none.log")


#: Writes as fast as argv says, in bytes a second, until it is ended.
FLOOD = """
import sys, time
piece, rate = b"x" * 99_999 + b"\\n", float(sys.argv[1])
began, written = time.monotonic(), 0
while True:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    written += len(piece)
    time.sleep(max(0.0, began + written / rate - time.monotonic()))
"""


@contextmanager
def flood(log: Path, rate: float = 50e6) -> Iterator[subprocess.Popen[bytes]]:
    """A program that floods its log."""
    with log.open("ab") as output:
        argv = [sys.executable, "-c", FLOOD, str(rate)]
        writer = subprocess.Popen(argv, stdout=output)
    try:
        yield writer
    finally:
        end(writer)


def test_a_log_that_grows_by_50_megabytes_a_second_stays_bounded(tmp_path: Path):
    log, limit = tmp_path / "m-0.log", 20_000_000
    logs = Logs(tmp_path, limit_bytes=limit)
    with flood(log):
        logs.start()
        sizes, until = [], time.monotonic() + 8
        while time.monotonic() < until:
            with suppress(FileNotFoundError):  # The copy has just been removed.
                sizes.append(sum(each.stat().st_size for each in tmp_path.iterdir()))
            time.sleep(0.05)
        logs.close()
    # The log, what comes between two looks, and the copy of at most two limits.
    assert max(sizes) < 3 * limit + 2 * 50_000_000 + limit


def test_a_copy_ends_though_its_log_grows_faster(tmp_path: Path):
    log = tmp_path / "m-0.log"
    with flood(log, rate=1e12):
        eventually(lambda: log.stat().st_size > 30_000_000)
        assert bound(log, limit_bytes=20_000_000)
    assert log.with_name("m-0.log.1").stat().st_size <= 40_000_000


def test_a_log_that_was_moved_or_deleted_is_cut_where_it_is(tmp_path: Path):
    logs = Logs(tmp_path, limit_bytes=1_000_000)
    moved, deleted = tmp_path / "m-0.log", tmp_path / "m-1.log"
    with flood(moved, rate=2e6) as one, flood(deleted, rate=2e6) as two:
        eventually(lambda: moved.stat().st_size and deleted.stat().st_size)
        assert list(find_moved(tmp_path)) == []
        moved.rename(tmp_path / "m-0.log-20261130")
        moved.touch()  # As logrotate makes a new one.
        deleted.unlink()
        outputs = [f"/proc/{each.pid}/fd/1" for each in (one, two)]
        eventually(lambda: all(os.stat(out).st_size > 1_000_000 for out in outputs))
        assert sorted(find_moved(tmp_path)) == sorted(outputs)
        logs.look(search=True)
        assert all(os.stat(out).st_size < 1_000_000 for out in outputs)


def test_logs_in_a_folder_that_a_link_leads_to_are_cut_too(tmp_path: Path):
    folder = tmp_path / "logs"
    (tmp_path / "disk").mkdir()
    folder.symlink_to(tmp_path / "disk")
    logs = Logs(folder, limit_bytes=1_000_000)
    with flood(folder / "m-0.log", rate=2e6) as writer:
        output = f"/proc/{writer.pid}/fd/1"
        eventually(lambda: os.stat(output).st_size > 1_000_000)
        (folder / "m-0.log").unlink()
        logs.look(search=True)
        assert os.stat(output).st_size < 1_000_000


def test_a_log_that_is_a_link_is_set_aside_and_cut_where_it_leads(tmp_path: Path):
    disk, folder = tmp_path / "disk", tmp_path / "logs"
    disk.mkdir()
    folder.mkdir()
    log, there, others = folder / "m-0.log", disk / "m-0.log", disk / "other.log"
    log.symlink_to(there)
    logs = Logs(folder, limit_bytes=1_000_000)
    with flood(log, rate=2e6) as writer, flood(others, rate=2e6):
        output = f"/proc/{writer.pid}/fd/1"
        eventually(lambda: there.stat().st_size > 1_000_000)
        logs.look(search=True)
        assert there.stat().st_size < 1_000_000
        assert there.with_name("m-0.log.1").exists()
        assert [each.name for each in folder.iterdir()] == ["m-0.log"]
        there.rename(disk / "m-0.log.moved")
        eventually(lambda: os.stat(output).st_size > 1_000_000)
        eventually(lambda: others.stat().st_size > 1_000_000)
        logs.look(search=True)
        assert os.stat(output).st_size < 1_000_000
        # What somebody else has beside it is none of the launcher's.
        assert others.stat().st_size > 1_000_000


def test_a_log_that_cannot_be_bounded_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    logs = Logs(tmp_path, limit_bytes=10)
    (tmp_path / "m-0.log").mkdir()
    (tmp_path / "m-0.log" / "large").write_bytes(b"x" * 100)
    for _ in range(3):
        logs.look(search=True)
    (said,) = caplog.messages
    assert "m-0.log cannot be set aside" in said


def test_what_steers_a_terminal_is_no_part_of_what_is_reported(tmp_path: Path):
    log = tmp_path / "m-0.log"
    said = "\x1b[1;31mERROR\x1b[0m \x1b]0;title\a caf\xe9\a\0\r\n\tat 5 \u20ac\n"
    log.write_bytes(said.encode())
    assert read_tail(log, 0) == "ERROR  caf\xe9\r\n\tat 5 \u20ac\n"


def test_logs_are_bounded_again_once_their_folder_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """As after a disk that was away: the folder itself was an error."""
    folder, log = tmp_path / "logs", tmp_path / "disk" / "m-0.log"
    folder.symlink_to("/" + 300 * "x")
    logs = Logs(folder, limit_bytes=10)
    logs.start()
    try:
        eventually(lambda: "logs cannot be looked at" in caplog.text)
        log.parent.mkdir()
        log.write_bytes(b"x" * 100)
        folder.unlink()
        folder.symlink_to(log.parent)
        eventually(lambda: log.stat().st_size == 0)
    finally:
        logs.close()
