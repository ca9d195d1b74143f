"""The closing report in words."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from modelserver.cli.batch.report import show
from modelserver.runs.files.tally import ModelTally, Tally
from modelserver.runs.rows import Answered, RowError

FIGURES = {
    "completed": 2_000_000,
    "failed": 0,
    "cut_off": 12,
    "requests_per_second": 3_141.59,
    "input_tokens_per_second": 250_000.4,
    "output_tokens_per_second": 99.6,
}
FOUND = MappingProxyType(
    {
        "seconds": 12.0,
        "requests_per_second": 3_141.59,
        "usage": {"input_tokens": 7, "output_tokens": 9},
        "cut_off": 1,
        "retries": 1,
        "cache_hits": 2,
        "faults": {"engine": 1},
        "models": {"a-model-of-a-name": FIGURES},
        "engines": {"a-model-of-a-name-0": {"completed": 5}},
        "slowest": [{"custom_id": "two\nlines", "seconds": 0.25}],
        "longest": [],
        "output_file": "out.jsonl",
        "error_file": "out.errors.jsonl",
        "retry_file": None,
    }
)


@dataclass(frozen=True)
class Run:
    """What the report asks of a run."""

    tally: Tally


def told(tally: Tally) -> list[str]:
    tally.error("m", "a\nb", RowError("EngineError", "it failed"))
    lines: list[str] = []
    show(Run(tally), FOUND, lines.append)
    return lines


def test_a_report_has_one_line_for_each_thing():
    lines = told(Tally(5, answered_before=4))
    assert lines[:4] == [
        "5 of 5 rows are done (4 of them earlier): 4 answered, 1 failed",
        "12.0 s, 3,141.6 requests/s; 7 tokens in, 9 out; 1 retry, 2 cache hits",
        "1 answer was cut off by max_tokens (finish_reason length)",
        r"1 failed by engine, as a\nb: it failed",
    ]
    assert lines[-3:] == [
        r"slowest: two\nlines (0.25 s)",
        "out.jsonl         answers",
        "out.errors.jsonl  errors",
    ]


def test_a_bad_line_without_a_name_is_told_without_one():
    tally = Tally(1)
    tally.error("", None, RowError("EngineError", "line 7: is no JSON"))
    lines: list[str] = []
    show(Run(tally), FOUND, lines.append)
    assert "1 failed by engine, as line 7: is no JSON" in lines


def test_models_and_engines_stand_in_the_same_columns():
    table = told(Tally(1))[4:8]
    assert table[1].split()[:2] == ["a-model-of-a-name", "2,000,000"]
    assert table[3].split() == ["a-model-of-a-name-0", "5"]
    places = [
        line.index(text) + len(text)
        for line, text in zip(
            (table[0], table[1], table[3]), ("answered", "2,000,000", "5"), strict=True
        )
    ]
    assert len(set(places)) == 1
    assert all(line == line.rstrip() for line in table)


def body(**more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return {"choices": [{"finish_reason": "length"}], "usage": usage, **more}


def test_answers_are_counted_by_model_and_by_engine():
    tally = Tally(3)
    tally.answer("m", "a", Answered(0, body(engine="m-0", seconds=2, attempts=3)))
    tally.answer("m", "b", Answered(1, body(engine="m-1", seconds=1)))
    tally.answer("m", "c", Answered(2, body(seconds=9), cached=True))
    assert tally.models == {"m": ModelTally(3, 0, 2, 6, 8)}
    assert tally.engines == {"m-0": 1, "m-1": 1}
    assert (tally.engines_in["m-1"], tally.engines_out["m-1"]) == (3, 4)
    assert (tally.retries, tally.cache_hits) == (2, 1)
    assert sorted(tally.slowest) == [(1.0, "b"), (2.0, "a")]
