"""A run of a file, killed at any point and begun again; and files that are wrong."""

import json
import os
import resource
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import BatchFileError, ModelserverError, RequestError
from modelserver.runs.files.batch_run import BadLinesError, BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths
from modelserver.runs.files.source import Source
from tests.support.batch_files import batch_line, names, read_lines, write_lines
from tests.support.run_lanes import App, MemoryLane

#: What an engine says.
BODY = {"choices": [{"text": "hi"}]}
#: What a child ends with that was killed at a chosen point.
KILLED = 9


def prepared(folder: Path, name: str = "in.jsonl", **options: Any) -> BatchRun:
    paths = BatchPaths(folder / "out.jsonl")
    run = BatchRun(App(), Source(folder / name), paths, BatchOptions(**options))
    try:
        run.prepare()
    except BaseException:
        run.close()
        raise
    return run


def run_whole(
    folder: Path,
    lane: MemoryLane | None = None,
    step: Callable[[str], None] = lambda _: None,
    name: str = "in.jsonl",
    **options: Any,
) -> BatchRun:
    run = prepared(folder, name, **options)
    try:
        run.run(lambda: step("watch"), lane or MemoryLane(most=3, step=step))
    finally:
        run.close()
    return run


def written(folder: Path, number: int = 12, bad: str = "") -> None:
    prompts = ["fail" if n == 5 else f"prompt {n}" for n in range(number)]
    lines = (batch_line(f"row-{n}", prompt) for n, prompt in enumerate(prompts))
    path = write_lines(folder / "in.jsonl", lines)
    if bad:
        path.write_text(path.read_text() + bad + "\n")


def killed_at(folder: Path, point: int) -> bool:
    """Run it in a child that dies at its n-th call; whether it came so far."""
    child = os.fork()
    if child == 0:
        calls = iter(range(point))

        def step(_: str) -> None:
            if next(calls, None) is None:
                os._exit(KILLED)

        try:
            run_whole(folder, step=step)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def test_a_run_that_is_killed_at_any_point_has_every_row_once(tmp_path: Path):
    point, is_killed = 0, True
    while is_killed:
        folder = tmp_path / str(point)
        folder.mkdir()
        written(folder)
        is_killed = killed_at(folder, point)
        run = run_whole(folder)
        found = names(folder / "out.jsonl") + names(folder / "out.errors.jsonl")
        assert found == {f"row-{n}": 1 for n in range(12)}, point
        assert (run.tally.answered, run.tally.failed) == (11, 1)
        assert list(names(folder / "out.retry.jsonl")) == ["row-5"]
        point += 1
    assert point > 10


def test_what_is_written_is_durable_before_it_is_settled(tmp_path: Path):
    written(tmp_path)
    lines: list[int] = []

    def step(call: str) -> None:
        if call == "settle":
            lines.append(len(read_lines(tmp_path / "out.jsonl")))

    lane = MemoryLane(most=3, step=step)
    run_whole(tmp_path, lane)
    assert sorted(lane.settled) == list(range(12))
    assert lines[-1] == 11


def test_a_run_that_another_program_has_is_left_as_it_is(tmp_path: Path):
    def lost() -> None:
        raise ModelserverError("another program has it")

    written(tmp_path)
    calls: list[str] = []
    run = prepared(tmp_path)
    run.check_holder = lost
    try:
        run.run(run.stop, MemoryLane(most=3, step=calls.append))
    finally:
        run.close()
    assert "receive" in calls
    assert not {"settle", "cancel"} & set(calls)
    assert json.loads((tmp_path / "out.run.json").read_text())["answered"] == 0


def test_what_is_done_is_not_asked_again(tmp_path: Path):
    written(tmp_path)
    run_whole(tmp_path)
    lane = MemoryLane()
    assert run_whole(tmp_path, lane).tally.answered == 11
    assert lane.sent == []
    output = (tmp_path / "out.jsonl").read_text().splitlines()
    output.pop(4)
    (tmp_path / "out.jsonl").write_text("\n".join(output) + "\n")
    journal = json.loads((tmp_path / "out.run.json").read_text())
    with pytest.raises(BatchFileError, match="had 11 answers and has 10"):
        prepared(tmp_path)
    journal["answered"] = 10
    (tmp_path / "out.run.json").write_text(json.dumps(journal))
    run_whole(tmp_path, lane)
    assert len(lane.sent) == 1


def test_a_run_that_is_stopped_takes_back_what_waits(tmp_path: Path):
    written(tmp_path)
    calls: Counter[str] = Counter()
    run = prepared(tmp_path)
    lane = MemoryLane(most=2, step=lambda call: calls.update([call]))
    run.run(run.stop, lane)
    run.close()
    assert calls["cancel"] == 1
    assert run.tally.left == 8
    assert run_whole(tmp_path).tally.left == 0


def test_answers_of_an_earlier_start_are_taken(tmp_path: Path):
    written(tmp_path, 2_500)
    lane = MemoryLane(most=50)
    lane.leave(range(300, 1_300))
    run = run_whole(tmp_path, lane)
    assert names(tmp_path / "out.jsonl").total() == 2_499
    assert run.tally.left == 0
    assert set(lane.sent).isdisjoint(range(300, 1_300))
    assert len(set(lane.settled)) == 2_500


# What is wrong with the files.


def test_every_bad_line_is_told_and_nothing_is_written(tmp_path: Path):
    twice = json.dumps(batch_line("row-3", "again"))
    written(tmp_path, bad=f"{{broken\n[]\n[]\n\n[]\n{twice}")
    with pytest.raises(BadLinesError, match=r"5 lines are bad in .* of 17;") as caught:
        prepared(tmp_path)
    assert caught.value.found.told()[1:] == [
        "lines 14-15, 17 (3 lines): is no object",
        "line 18: has the custom_id 'row-3', as line 4 has",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_bad_lines_stand_among_the_errors_and_not_among_the_retries(tmp_path: Path):
    twice = json.dumps(batch_line("row-3", "again"))
    written(tmp_path, bad=f"{{broken\n{twice}")
    run = run_whole(tmp_path, skip_bad=True)
    assert (run.tally.answered, run.tally.failed) == (11, 3)
    assert names(tmp_path / "out.jsonl")["row-3"] == 1
    errors = read_lines(tmp_path / "out.errors.jsonl")
    told = [e["response"] and e["response"]["status_code"] for e in errors]
    assert sorted(map(str, told)) == ["400", "400", "None"]
    assert list(names(tmp_path / "out.retry.jsonl")) == ["row-5"]


def test_an_empty_file_is_told(tmp_path: Path):
    (tmp_path / "in.jsonl").write_text("\n \n")
    with pytest.raises(BatchFileError, match="is empty"):
        prepared(tmp_path)


def test_output_of_another_run_is_left_as_it_is(tmp_path: Path):
    written(tmp_path)
    for name in ("out.jsonl", "out.errors.jsonl", "out.retry.jsonl"):
        (tmp_path / name).write_text("mine\n")
        with pytest.raises(BatchFileError, match=f"{name} is there"):
            prepared(tmp_path)
        assert (tmp_path / name).read_text() == "mine\n"
        (tmp_path / name).unlink()
    assert not (tmp_path / "out.run.json").exists()


def test_another_input_or_other_options_are_told(tmp_path: Path):
    written(tmp_path)
    run_whole(tmp_path, model="writer")
    told = "--model was 'writer' and is not given now; --set was not given and is "
    with pytest.raises(BatchFileError, match=told + "max_tokens=5 now; say the same"):
        prepared(tmp_path, parameters={"max_tokens": 5})
    written(tmp_path, 13)
    with pytest.raises(BatchFileError, match=r"another input \(.*in.jsonl, 12 rows\)"):
        prepared(tmp_path, model="writer")


def test_output_that_was_deleted_is_told(tmp_path: Path):
    written(tmp_path)
    run_whole(tmp_path)
    (tmp_path / "out.jsonl").unlink()
    with pytest.raises(BatchFileError, match="had 11 answers and has 0 now"):
        prepared(tmp_path)
    assert not (tmp_path / "out.jsonl").exists()


def test_output_that_is_deleted_meanwhile_stops_the_run(tmp_path: Path):
    written(tmp_path)
    out = tmp_path / "out.jsonl"
    with pytest.raises(BatchFileError, match="removed or replaced"):
        run_whole(tmp_path, step=lambda call: call == "watch" and out.unlink())


def test_input_that_changes_meanwhile_stops_the_run(tmp_path: Path):
    written(tmp_path, 2_500)

    def step(call: str) -> None:
        if call == "watch":
            (tmp_path / "in.jsonl").touch()

    with pytest.raises(BatchFileError, match="changed while it was read"):
        run_whole(tmp_path, MemoryLane(most=3), step)
    assert run_whole(tmp_path).tally.left == 0


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"run": 1}',
        '{"run": "r", "source": "a", "digest": "", "rows": "12"}',
        '{"run": "r", "source": "a", "digest": "", "rows": 12, "repeated": ["a"]}',
    ],
)
def test_a_damaged_journal_is_told(tmp_path: Path, text: str):
    written(tmp_path)
    run_whole(tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.run.json").write_text(text)
    with pytest.raises(BatchFileError, match="is damaged"):
        prepared(tmp_path)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_where_there_is_no_room_whole_lines_stand_and_it_goes_on(tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in range(0, 1_900, 61):
        folder = tmp_path / str(most)
        folder.mkdir()
        written(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        lane = MemoryLane(most=3)
        try:
            with pytest.raises(BatchFileError, match="File too large; raise the limit"):
                run_whole(folder, lane)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        lines = names(folder / "out.jsonl") + names(folder / "out.errors.jsonl")
        assert {f"row-{n}" for n in lane.settled} <= lines.keys()
        run_whole(folder)
        found = names(folder / "out.jsonl") + names(folder / "out.errors.jsonl")
        assert found == {f"row-{n}": 1 for n in range(12)}, most
        assert list(names(folder / "out.retry.jsonl")) == ["row-5"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl", "out.retry.jsonl"])
def test_an_input_that_would_be_written_into_is_refused(tmp_path: Path, name: str):
    written(tmp_path)
    os.link(tmp_path / "in.jsonl", tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(BatchFileError, match=r"in\.jsonl is the input, and a run with"):
        prepared(tmp_path)
    assert (tmp_path / name).read_bytes() == before


def test_requests_that_are_answered_since_are_not_to_be_run_again(tmp_path: Path):
    written(tmp_path)
    run_whole(tmp_path)
    (tmp_path / "out.errors.jsonl").unlink()
    lane = MemoryLane(order=lambda rows: [replace(rows[0], value=BODY, error=None)])
    run_whole(tmp_path, lane)
    assert not (tmp_path / "out.retry.jsonl").exists()


def test_what_is_done_is_put_into_the_order_of_the_input(tmp_path: Path):
    written(tmp_path, 200)
    lane = MemoryLane(most=3, order=lambda rows: rows[::-1])
    run_whole(tmp_path, lane)
    order = [f"row-{n}" for n in range(200) if n != 5]
    assert [*names(tmp_path / "out.jsonl")] != order
    run = prepared(tmp_path)
    run.sort()
    run.close()
    assert [*names(tmp_path / "out.jsonl")] == order
    lane = MemoryLane()
    assert run_whole(tmp_path, lane).tally.answered == 199
    assert lane.sent == []


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path):
    written(tmp_path)
    paths = BatchPaths(tmp_path / "nowhere" / "out.jsonl")
    run = BatchRun(App(), Source(tmp_path / "in.jsonl"), paths, BatchOptions())
    with pytest.raises(BatchFileError, match=r"cannot write .*correct the path"):
        run.prepare()


@pytest.mark.parametrize(
    "name", ["out.jsonl", "out.errors.jsonl", "out.retry.jsonl", "out.run.json"]
)
def test_a_pipe_in_the_place_of_a_file_is_left_as_it_is(tmp_path: Path, name: str):
    written(tmp_path)
    os.mkfifo(tmp_path / name)
    with pytest.raises(BatchFileError, match=f"{name} is a device or a pipe"):
        run_whole(tmp_path)
    assert (tmp_path / name).is_fifo()
    assert len([*tmp_path.iterdir()]) == 2


def test_a_name_that_the_disk_refuses_is_told(tmp_path: Path):
    written(tmp_path)
    source, paths = Source(tmp_path / "in.jsonl"), BatchPaths(tmp_path / ("x" * 250))
    with pytest.raises(BatchFileError, match="File name too long"):
        BatchRun(App(), source, paths, BatchOptions())
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "out.jsonl")
    with pytest.raises(BatchFileError, match="Too many levels of symbolic links"):
        run_whole(tmp_path)


def test_a_folder_in_the_place_of_an_unfinished_file_is_left(tmp_path: Path):
    written(tmp_path)
    (tmp_path / "out.jsonl.new").mkdir()
    assert run_whole(tmp_path).tally.answered == 11
    assert (tmp_path / "out.jsonl.new").is_dir()


def test_a_table_needs_a_prompt_and_lines_take_none(tmp_path: Path):
    written(tmp_path)
    (tmp_path / "in.csv").write_text("text\nhi\n")
    with pytest.raises(BatchFileError, match="is a table"):
        prepared(tmp_path, "in.csv")
    with pytest.raises(BadLinesError) as refused:
        prepared(tmp_path, prompt="{text}")
    (told,) = refused.value.found.told()
    assert told.startswith("lines 1-12 (12 lines): has a whole request, ")
    with pytest.raises(RequestError, match="template"):
        prepared(tmp_path, "in.csv", prompt="{")
    run = run_whole(tmp_path, name="in.csv", prompt="Say {text}")
    assert run.tally.answered == 1


def test_lines_of_columns_are_a_table(tmp_path: Path):
    lines = ['{"text": "hi"}', '{"text": null}', '{"custom_id": "b", "text": ""}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run_whole(tmp_path, prompt="Say {text}", skip_bad=True)
    assert names(tmp_path / "out.jsonl") == {"row-0": 1, "b": 1}
