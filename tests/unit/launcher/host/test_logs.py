"""Logs that are set aside while programs write to them."""

import subprocess
import sys
from pathlib import Path

from launcher.host.logs import bound
from launcher.host.process import read_tail
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
