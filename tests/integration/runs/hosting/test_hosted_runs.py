"""Submitted runs on real workers, and processes that carry them out and die."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver.errors import BatchFileError, ModelserverError
from modelserver.operations.hosted_runs import read_runs_status
from modelserver.runs.hosting.orders import find_run, order_run, resume_run
from modelserver.store.fleet.workers import read_backlog
from modelserver.store.runs.hosted import HostedRun, RunOrder
from tests.support.batch_files import batch_line, names, names_so_far, write_lines
from tests.support.hosted_runs import (
    batch,
    holder,
    kept,
    obstacle,
    state,
    submit,
)
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite

ROWS = 400
#: So much slower than usual the engine is: all rows take some seconds.
SLOW = 40
#: Rows that the engine begins between the first and the last one of a small run.
MOST_BETWEEN = 200


def written(folder: Path, number: int = ROWS, name: str = "in") -> Path:
    lines = (batch_line(f"{name}-{n}", f"{name} {n}") for n in range(number))
    return write_lines(folder / f"{name}.jsonl", lines)


def whole(number: int = ROWS, name: str = "in") -> dict[str, int]:
    return {f"{name}-{n}": 1 for n in range(number)}


def executed(fleet: FleetSite) -> dict[str, int]:
    return dict(fleet.engines["writer-0"].stats()["executed"])


def await_end(fleet: FleetSite, run: str) -> None:
    eventually(lambda: state(fleet.store, run) == "completed", within=120)


def test_a_killed_holders_run_goes_on_in_another(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(slow=SLOW)
    source, out = written(tmp_path), tmp_path / "out.jsonl"
    with holder(fleet, "killed") as first, holder(fleet, "second") as second:
        first.wait_until_ready()
        second.wait_until_ready()
        run = submit(fleet, source, out)
        eventually(lambda: len(names_so_far(out)) > ROWS / 5)
        a, b = (first, second) if first.has(fleet.store, run) else (second, first)
        a.process.send_signal(signal.SIGKILL)
        a.process.wait(10)
        done, asked = names_so_far(out), executed(fleet)
        eventually(lambda: b.has(fleet.store, run), within=PATIENCE)
        fleet.engines["writer-0"].fault()
        await_end(fleet, run)
    assert names(out) == whole()
    again = executed(fleet)
    prompts = [name.replace("-", " ") for name in done]
    assert [p for p in prompts if again[p] > asked[p]] == []
    found = kept(fleet.store, run)
    assert found.report["request_counts"]["completed"] == ROWS
    assert found.incarnation == 2


def test_a_frozen_holder_writes_nothing_more(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(slow=SLOW)
    source, out = written(tmp_path), tmp_path / "out.jsonl"
    run = submit(fleet, source, out)
    with holder(fleet, "frozen") as frozen:
        eventually(lambda: len(names_so_far(out)) > ROWS / 5)
        frozen.process.send_signal(signal.SIGSTOP)
        with holder(fleet, "other") as other:
            eventually(lambda: other.has(fleet.store, run), within=PATIENCE)
            fleet.engines["writer-0"].fault()
            eventually(lambda: len(names_so_far(out)) > ROWS / 2)
            frozen.process.send_signal(signal.SIGCONT)
            await_end(fleet, run)
            eventually(lambda: "has another holder now" in frozen.said(), PATIENCE)
    assert names(out) == whole()
    assert not list(tmp_path.glob("*.copy"))


def test_a_small_run_is_not_stuck_behind_a_big_one(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(slow=SLOW)
    big, small = written(tmp_path, 2_000, "big"), written(tmp_path, 20, "small")
    with holder(fleet, "shared"):
        out = tmp_path / "out-big.jsonl"
        first = submit(fleet, big, out)
        eventually(lambda: len(names_so_far(out)) > 100)
        await_end(fleet, submit(fleet, small, tmp_path / "out-small.jsonl"))
        assert state(fleet.store, first) == "running"
        in_order = list(executed(fleet))
        its = [n for n, prompt in enumerate(in_order) if prompt.startswith("small ")]
        assert len(its) == 20
        # From its first row to its last one it takes turns with the other.
        assert its[-1] - its[0] < MOST_BETWEEN
        fleet.engines["writer-0"].fault()
        await_end(fleet, first)
    assert names(out) == whole(2_000, "big")


def test_a_run_is_paused_gone_on_with_and_cancelled(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(slow=SLOW)
    source, out = written(tmp_path), tmp_path / "out.jsonl"

    def order(wanted: RunOrder) -> None:
        order_run(fleet.app, fleet.store, find_run(fleet.store, run[:8]), wanted)

    with holder(fleet, "orders"):
        run = submit(fleet, source, out)
        eventually(lambda: names_so_far(out))
        order(RunOrder.PAUSE)
        eventually(lambda: state(fleet.store, run) == "paused", PATIENCE)
        eventually(lambda: not fleet.held(), PATIENCE)
        assert 0 < len(names(out)) < ROWS
        again = batch(fleet, "submit", source, "-o", out, "--sorted")
        assert again.stdout.strip() == run
        assert "is there already" in again.stderr
        resume_run(fleet.store, find_run(fleet.store, run))
        eventually(lambda: state(fleet.store, run) == "running", PATIENCE)
        order(RunOrder.CANCEL)
        eventually(lambda: state(fleet.store, run) == "cancelled", PATIENCE)
        done = len(names(out))
        assert done < ROWS
        told = batch(fleet, "watch", run, status=130)
        assert "was cancelled" in told.stderr
        assert f"{done:,} of {ROWS:,} rows are done" in told.stdout
        fleet.engines["writer-0"].fault()
        cache = ("--cache", tmp_path / "answers", "--json")
        told = batch(fleet, "submit", source, "-o", out, *cache)
        assert json.loads(told.stdout)["id"] == run
        await_end(fleet, run)
        assert (tmp_path / "answers").exists()
    assert names(out) == whole()
    copy = batch(fleet, "results", run, "-o", "-")
    assert copy.stdout == out.read_text()


def test_a_run_whose_files_are_elsewhere_is_left_to_others(
    fleet: FleetSite, tmp_path: Path
):
    folder, away = tmp_path / "here", tmp_path / "away"
    folder.mkdir()
    source, out = written(folder, 20), folder / "out.jsonl"
    run = submit(fleet, source, out)
    none = "no process `modelserver batches` runs"
    eventually(lambda: none in obstacle(fleet.store, run), PATIENCE)
    folder.rename(away)
    with holder(fleet, "blind", host="h2"):
        eventually(lambda: "h2 does not see" in obstacle(fleet.store, run), PATIENCE)
        told = batch(fleet, "list").stdout
        assert f"{run} waiting: h2 does not see {source}" in told
        assert "It was submitted on h1" in told
        away.rename(folder)
        await_end(fleet, run)
    assert names(out) == whole(20)
    with pytest.raises(BatchFileError, match="begun with another input"):
        submit(fleet, written(folder, 20, "other"), out)
    with pytest.raises(ModelserverError, match="is completed already"):
        order_run(fleet.app, fleet.store, kept(fleet.store, run), RunOrder.CANCEL)


def test_a_run_that_nobody_holds_is_cancelled_at_once(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(hang=True)
    run = submit(fleet, written(tmp_path), tmp_path / "out.jsonl")
    with holder(fleet, "gone") as gone:
        eventually(lambda: read_backlog(fleet.store, "writer"))
        gone.process.terminate()
        assert gone.process.wait(PATIENCE) == 0
    assert state(fleet.store, run) == "waiting"
    assert not kept(fleet.store, run).holder
    eventually(lambda: read_runs_status(fleet.store).is_stuck, PATIENCE)
    found = find_run(fleet.store, run)
    order_run(fleet.app, fleet.store, found, RunOrder.CANCEL)
    assert state(fleet.store, run) == "cancelled"
    assert read_backlog(fleet.store, "writer") == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def is_full(run: HostedRun, now: float) -> bool:
    """Whether it is paused because its disk is full."""
    return run.state(now) == "paused" and "no space left" in run.standing.reason


def test_a_full_disk_pauses_a_run_until_there_is_room(
    fleet: FleetSite, tmp_path: Path, small_disk: Path
):
    source, out = written(tmp_path, 1_000), small_disk / "out.jsonl"
    run = submit(fleet, source, out)
    with holder(fleet, "full"):
        # It is tried again and again: how it stands and why is looked at at once.
        eventually(lambda: is_full(kept(fleet.store, run), fleet.store.now()))
        assert all(times == 1 for times in names_so_far(out).values())
        bigger = ["mount", "-o", "remount,size=8m", str(small_disk)]
        subprocess.run(bigger, check=True)
        await_end(fleet, run)
    assert names(out) == whole(1_000)
