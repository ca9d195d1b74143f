"""``modelserver batch run``: files of requests, run by real workers."""

import gzip
import json
import signal
from pathlib import Path

from tests.engine.openai_api import answer_text
from tests.support.batch_files import (
    batch_line,
    names,
    names_so_far,
    read_lines,
    run_batch,
    start_batch,
    write_lines,
)
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite

ROWS = 400


def written(tmp_path: Path, number: int = ROWS) -> Path:
    lines = (batch_line(f"row-{n}", f"prompt {n}") for n in range(number))
    return write_lines(tmp_path / "in.jsonl", lines)


def test_a_file_of_openai_runs_unchanged(fleet: FleetSite, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    lines = [batch_line(f"row-{n}", f"prompt {n}") for n in range(50)]
    lines[7]["url"] = "/v1/completions"
    lines[7]["body"] = {"model": "writer", "prompt": "once"}
    lines[8]["url"] = "/v1/embeddings"
    lines[8]["body"] = {"model": "vectors", "input": ["one", "two"]}
    source = write_lines(tmp_path / "in.jsonl", lines)
    done = run_batch(fleet.environment, source, "-o", out, "--json")
    report = json.loads(done.stdout)
    assert report["request_counts"] == {"total": 50, "completed": 50, "failed": 0}
    found = {line["custom_id"]: line for line in read_lines(out)}
    assert len(found) == 50
    chat = found["row-3"]["response"]
    assert chat["status_code"] == 200
    text = chat["body"]["choices"][0]["message"]["content"]
    assert text == answer_text("prompt 3")
    assert found["row-7"]["response"]["body"]["choices"][0]["text"]
    assert len(found["row-8"]["response"]["body"]["data"]) == 2
    assert found["row-3"]["error"] is None
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_the_report_says_who_answered_and_after_how_many_attempts(
    fleet: FleetSite, tmp_path: Path
):
    fleet.engines["writer-0"].fault(status=500, rate=0.2)
    source, out = written(tmp_path, 60), tmp_path / "out.jsonl"
    done = run_batch(fleet.environment, source, "-o", out, "--json", "--sorted")
    report, lines = json.loads(done.stdout), read_lines(out)
    assert [line["custom_id"] for line in lines] == [f"row-{n}" for n in range(60)]
    attempts = [line["response"]["attempts"] for line in lines]
    assert min(attempts) == 1
    assert report["retries"] == sum(attempts) - 60 > 0
    engine, model = report["engines"]["writer-0"], report["models"]["writer"]
    assert engine["completed"] == model["completed"] == 60
    assert engine["output_tokens"] == report["usage"]["output_tokens"] > 0
    assert engine["output_tokens_per_second"] > 0
    assert len(report["slowest"]) == len(report["longest"]) == 5


def test_a_killed_run_goes_on_with_what_is_missing(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(slow=20)
    source, out = written(tmp_path), tmp_path / "out.jsonl"
    for share in (0.1, 0.3, 0.5):
        process = start_batch(fleet.environment, source, "-o", out)
        eventually(lambda s=share: len(names_so_far(out)) > s * ROWS)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    with out.open("ab") as stream:
        stream.write(b'{"id":"batch_req_torn')
    fleet.engines["writer-0"].fault()
    done = run_batch(fleet.environment, source, "-o", out)
    assert "goes on with" in done.stderr
    assert "torn" in done.stderr
    assert names(out) == {f"row-{n}": 1 for n in range(ROWS)}
    again = run_batch(fleet.environment, source, "-o", out)
    assert "400 answered" in again.stdout


def test_ctrl_c_takes_back_what_waits(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(slow=50)
    source, out = written(tmp_path), tmp_path / "out.jsonl"
    process = start_batch(fleet.environment, source, "-o", out)
    eventually(lambda: names_so_far(out))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, said
    assert "Run the same command again" in said
    fleet.engines["writer-0"].fault()
    eventually(lambda: not fleet.held(), PATIENCE)
    run_batch(fleet.environment, source, "-o", out)
    assert names(out) == {f"row-{n}": 1 for n in range(ROWS)}


def test_rows_that_fail_can_be_run_again(fleet: FleetSite, tmp_path: Path):
    fleet.engines["writer-0"].fault(status=400, marked="prompt 1")
    source, out = written(tmp_path, 20), tmp_path / "out.jsonl"
    done = run_batch(fleet.environment, source, "-o", out, status=1)
    assert "11 failed by request" in done.stdout
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert {line["response"]["status_code"] for line in errors} == {400}
    assert errors[0]["response"]["body"]["error"]["message"]
    fleet.engines["writer-0"].fault()
    retry, second = tmp_path / "out.retry.jsonl", tmp_path / "second.jsonl"
    run_batch(fleet.environment, retry, "-o", second)
    assert names(out) + names(second) == {f"row-{n}": 1 for n in range(20)}


def test_failed_rows_are_asked_again_without_the_file_of_errors(
    fleet: FleetSite, tmp_path: Path
):
    fleet.engines["writer-0"].fault(status=400, marked="prompt 1")
    source, out = written(tmp_path, 20), tmp_path / "out.jsonl"
    run_batch(fleet.environment, source, "-o", out, status=1)
    fleet.engines["writer-0"].fault()
    (tmp_path / "out.errors.jsonl").unlink()
    done = run_batch(fleet.environment, source, "-o", out)
    assert "11 rows that had failed are asked again" in done.stderr
    assert names(out) == {f"row-{n}": 1 for n in range(20)}


def test_a_table_makes_prompts_of_its_columns(fleet: FleetSite, tmp_path: Path):
    source, out = tmp_path / "in.csv.gz", tmp_path / "out.jsonl"
    rows = 'text,custom_id\r\n"one, with a comma",a\r\n"two\nlines",b\r\n'
    source.write_bytes(gzip.compress(b"\xef\xbb\xbf" + rows.encode()))
    options = ["--model", "writer", "--prompt", "Translate: {text}", "--chat"]
    run_batch(fleet.environment, source, "-o", out, *options, "--set", "max_tokens=4")
    found = {line["custom_id"]: line["response"]["body"] for line in read_lines(out)}
    assert found.keys() == {"a", "b"}
    assert found["a"]["usage"]["completion_tokens"] == 4
    text = answer_text("Translate: one, with a comma")
    assert text.startswith(found["a"]["choices"][0]["message"]["content"])


def test_identical_rows_are_asked_once_with_a_cache(fleet: FleetSite, tmp_path: Path):
    lines = (batch_line(f"row-{n}", f"one of {n % 10}") for n in range(100))
    source, cache = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "answers"
    before = fleet.engines["writer-0"].stats()["received"]
    for name in ("one.jsonl", "two.jsonl"):
        out = tmp_path / name
        run_batch(fleet.environment, source, "-o", out, "--cache", cache)
        assert names(out) == {f"row-{n}": 1 for n in range(100)}
    found = {line["custom_id"]: line["response"]["body"] for line in read_lines(out)}
    assert found["row-47"]["choices"][0]["message"]["content"].endswith("one of 7")
    assert fleet.engines["writer-0"].stats()["received"] - before == 10


def test_a_pipe_is_a_file(fleet: FleetSite, tmp_path: Path):
    text, out = written(tmp_path, 30).read_text(), tmp_path / "out.jsonl"
    run_batch(fleet.environment, "-", "-o", out, input=text)
    done = run_batch(fleet.environment, "-", "-o", out, input=text)
    assert "30 of them earlier" in done.stdout
    assert len(names(out)) == 30


def test_a_template_over_a_missing_value_is_a_bad_line(
    fleet: FleetSite, tmp_path: Path
):
    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text('id,text\n1,fine\n2,\n3,""\n')
    options = ["--model", "writer", "--prompt", "Say: {text}"]
    done = run_batch(fleet.environment, source, "-o", out, *options, status=1)
    assert 'line 3: column "text" is empty' in done.stderr
    assert "1 line is bad" in done.stderr


def test_bad_lines_are_left_out_where_that_is_asked(fleet: FleetSite, tmp_path: Path):
    source, out = written(tmp_path, 5), tmp_path / "out.jsonl"
    with source.open("a") as stream:
        stream.write("{broken\n")
        stream.write(json.dumps(batch_line("row-9", "x", model="nobody")) + "\n")
    done = run_batch(fleet.environment, source, "-o", out, status=1)
    assert "line 6: is no JSON" in done.stderr
    assert 'line 7: the fleet has no model "nobody"' in done.stderr
    assert not out.exists()
    run_batch(fleet.environment, source, "-o", out, "--skip-bad", status=1)
    assert len(names(out)) == 5
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert [line["custom_id"] for line in errors] == [None, "row-9"]
    assert not (tmp_path / "out.retry.jsonl").exists()
