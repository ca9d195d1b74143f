"""Whether a host sees a run's files."""

from pathlib import Path

from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.hosting.sight import find_unseen, has_room
from modelserver.store.runs.hosted import SubmittedRun


def submitted(folder: Path, run: str = "") -> SubmittedRun:
    source, paths = folder / "in.jsonl", BatchPaths(folder / "out.jsonl")
    source.write_text("{}\n")
    journal = Journal.begin("in.jsonl", "digest", 1, {})
    journal.write(paths.journal)
    return SubmittedRun(run or journal.run, str(source), str(paths.output), 1)


def test_files_that_are_here_are_seen(tmp_path: Path):
    assert find_unseen(submitted(tmp_path), "h2") == ""


def test_an_input_that_is_elsewhere_is_told(tmp_path: Path):
    run = submitted(tmp_path)
    Path(run.source).unlink()
    assert find_unseen(run, "h2") == f"h2 does not see {run.source}"


def test_a_folder_with_another_run_is_told(tmp_path: Path):
    found = find_unseen(submitted(tmp_path, "another"), "h2")
    assert found == f"h2 does not see {tmp_path}/out.run.json of this run"


def test_a_damaged_journal_is_told(tmp_path: Path):
    run = submitted(tmp_path)
    (tmp_path / "out.run.json").write_text("{")
    assert "is damaged" in find_unseen(run, "h2")


def test_a_disk_with_room_has_room(tmp_path: Path):
    assert has_room(tmp_path / "out.jsonl")
    assert not has_room(tmp_path / "nowhere" / "out.jsonl")
    assert list(tmp_path.iterdir()) == []
