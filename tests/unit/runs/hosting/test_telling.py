"""How far a run is, through the store, without what its errors say."""

import json
from dataclasses import asdict
from pathlib import Path

from modelserver.cli.batch.panel import line
from modelserver.decoding import decode
from modelserver.runs.answer_cache import CacheFile
from modelserver.runs.files.batch_run import BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.runs.files.source import Source
from modelserver.runs.hosting.submitting import kept_options, read_options
from modelserver.runs.hosting.telling import RunView, tell
from modelserver.store.runs.hosted import HostedRun, SubmittedRun
from tests.support.batch_files import batch_line, write_lines
from tests.support.run_lanes import App, MemoryLane


def test_whoever_watches_sees_what_the_holder_sees(tmp_path: Path):
    lines = (
        batch_line(f"row-{n}", f"{'fail' * (n == 5)} secret {n}") for n in range(9)
    )
    source = write_lines(tmp_path / "in.jsonl", lines)
    paths = BatchPaths(tmp_path / "out.jsonl")
    job = BatchRun(App(), Source(source), paths, BatchOptions())
    told: list[str] = []
    try:
        job.prepare()
        job.run(lambda: told.append(json.dumps(tell(job))), MemoryLane(most=3))
        told.append(json.dumps(tell(job)))
    finally:
        job.close()
    assert "secret" not in "".join(told)
    run = SubmittedRun(job.journal.run, str(source), str(paths.output), 9)
    view = RunView(HostedRun(run, progress=json.loads(told[-1])))
    assert (view.tally.answered, view.tally.failed, view.tally.left) == (8, 1, 0)
    assert view.tally.models == job.tally.models
    assert view.tally.engines == job.tally.engines
    assert view.tally.slowest == job.tally.slowest
    assert dict(view.tally.faults) == {"engine": 1}
    assert view.tally.examples["engine"] == f"told in {paths.errors}"
    assert line(view).startswith("9/9, 1 failed, ETA done; ")
    assert line(view).endswith("0 in flight, 1 of 2 engines ready")
    waiting = json.loads(told[-1]) | {"places": {}}
    waiting["ready_engines"] = {"writer": [0, 2]}
    view = RunView(HostedRun(run, progress=waiting | {"asked": ["writer"]}))
    assert "waits: 0 of 2 engines of writer are ready; see `modelserver why" in line(
        view
    )


def test_a_run_that_nobody_began_is_shown_as_well():
    view = RunView(HostedRun(SubmittedRun("run1", "/in", "/out", 9)))
    assert line(view).startswith("0/9, ETA -; 0.0 requests/s")


def test_the_options_of_a_run_come_back_but_for_its_prompt(tmp_path: Path):
    options = BatchOptions(
        model="writer",
        prompt="a secret {x}",
        parameters={"max_tokens": 3},
        skip_bad=True,
        priority=6,
        cache=CacheFile(tmp_path / "answers.sqlite"),
    )
    paths = BatchPaths(tmp_path / "out.jsonl")
    journal = Journal.begin("in.csv", "digest", 1, options.kept())
    journal.write(paths.journal)
    kept = kept_options(options)
    run = SubmittedRun(journal.run, "/in", "/out", 1, options=kept)
    stored = json.dumps(asdict(run), default=str)
    assert "secret" not in stored
    assert read_options(decode(SubmittedRun, json.loads(stored)), paths) == options
