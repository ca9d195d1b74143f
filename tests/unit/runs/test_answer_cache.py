"""A file of answers, for identical requests of other runs."""

import itertools
import logging
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import BatchFileError
from modelserver.messaging.catalogue import Catalogue
from modelserver.messaging.wire import CHAT, COMPLETE
from modelserver.runs.answer_cache import AnswerCache, CacheFile, RequestKeys
from modelserver.runs.repeats import AnswersOfRun, unsent
from modelserver.runs.rows import Answered, Row, RowError
from tests.support.run_lanes import MODELS

ROW = Row(0, COMPLETE, "once", {"model": "writer", "temperature": 0})


def keep(path: Path, number: int, text: str = "x", **limits: Any) -> None:
    cache = AnswerCache(CacheFile(path, **limits))
    for place in range(number):
        cache.add(b"%d" % place, {"text": text, "place": place})
        cache.flush()
    cache.close()


def kept(path: Path, number: int, **limits: Any) -> list[int]:
    cache = AnswerCache(CacheFile(path, **limits))
    found = [place for place in range(number) if cache.find(b"%d" % place)]
    cache.close()
    return found


def test_answers_come_back(tmp_path: Path):
    keep(tmp_path / "answers", 3)
    cache = AnswerCache(CacheFile(tmp_path / "answers"))
    assert cache.find(b"1") == {"text": "x", "place": 1}
    assert cache.find(b"9") is None
    cache.close()


def test_the_oldest_go_where_the_file_is_full(tmp_path: Path):
    limit = 200_000
    keep(tmp_path / "answers", 40, "x" * 10_000, max_bytes=limit)
    found = kept(tmp_path / "answers", 40)
    assert found == list(range(found[0], 40))
    assert 8 <= len(found) <= 20
    assert (tmp_path / "answers").stat().st_size <= 2 * limit


def test_old_answers_are_none(tmp_path: Path):
    keep(tmp_path / "answers", 3)
    assert kept(tmp_path / "answers", 3, max_age_seconds=0.0) == []
    assert kept(tmp_path / "answers", 3) == [0, 1, 2]
    keep(tmp_path / "answers", 1, max_age_seconds=0.0)
    assert kept(tmp_path / "answers", 3) == [0]


def test_several_programs_may_write(tmp_path: Path):
    path, errors = tmp_path / "answers", []

    def write(first: int) -> None:
        try:
            cache = AnswerCache(CacheFile(path))
            for place in range(first, first + 50):
                cache.add(b"%d" % place, {})
                cache.flush()
            cache.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(50 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    cache = AnswerCache(CacheFile(path))
    assert all(cache.find(b"%d" % place) == {} for place in range(200))
    cache.close()


def test_programs_that_begin_at_once_share_a_new_file(tmp_path: Path):
    errors, at_once = [], threading.Barrier(4)

    def begin(path: Path) -> None:
        at_once.wait()
        try:
            AnswerCache(CacheFile(path)).close()
        except Exception as error:
            errors.append(error)

    # One attempt in ten failed.
    for attempt in range(60):
        begins = (tmp_path / f"answers-{attempt}",)
        threads = [threading.Thread(target=begin, args=begins) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "text").write_text("no cache " * 500)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    for name in ("text", "other"):
        with pytest.raises(BatchFileError, match="is no cache"):
            AnswerCache(CacheFile(tmp_path / name))


def test_a_file_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    cache = AnswerCache(CacheFile(tmp_path / "answers"))
    with sqlite3.connect(tmp_path / "answers") as other:
        other.execute("DROP TABLE answers")
    other.close()
    with caplog.at_level(logging.WARNING):
        for place in range(3):
            cache.add(b"%d" % place, {})
            cache.flush()
    assert [each.message[:33] for each in caplog.records] == [
        "answers are not kept any more: ca"
    ]
    cache.close()


def variants() -> list[tuple[Row, Catalogue]]:
    writer = MODELS.models[0]
    other = replace(MODELS, models=(replace(writer, path="/other"),))
    newer = replace(MODELS, models=(replace(writer, extra_args=("--revision", "2")),))
    return [
        (ROW, MODELS),
        (replace(ROW, task=CHAT), MODELS),
        (replace(ROW, payload="twice"), MODELS),
        (replace(ROW, parameters={**ROW.parameters, "seed": 1}), MODELS),
        (ROW, other),
        (ROW, newer),
        (ROW, replace(MODELS, defaults={"max_tokens": 7})),
    ]


def test_what_is_asked_otherwise_is_another_request():
    keys = [RequestKeys(lambda m=models: m).key(row) for row, models in variants()]
    assert all(one != two for one, two in itertools.combinations(keys, 2))


def test_how_long_it_may_take_does_not_matter():
    hurried = replace(ROW, number=9, parameters={**ROW.parameters, "deadline": 5})
    keys = RequestKeys(lambda: MODELS)
    assert keys.key(hurried) == keys.key(ROW)


def run(path: Path, body: Any, error: RowError | None = None) -> list[Any]:
    """What a run does for two identical rows, the first of which gets this answer."""
    answers = AnswersOfRun(None, False, lambda: MODELS, CacheFile(path))
    answers.open()
    found: list[Any] = [*answers.asked(ROW), *answers.asked(replace(ROW, number=1))]
    if isinstance(found[0], Row):
        found.append(answers.all_of(0, Answered(0, body, error)))
    answers.close()
    return [*found, answers.hits]


def test_a_later_run_has_the_answers_of_an_earlier_one(tmp_path: Path):
    assert run(tmp_path / "answers", {"a": 1}) == [ROW, [0, 1], 1]
    again = [Answered(unsent(n), {"a": 1}, cached=True) for n in (0, 1)]
    assert run(tmp_path / "answers", {}) == [*again, 2]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (None, RowError("EngineError", "it failed")),
        ({"fallback_for": "writer"}, None),
    ],
    ids=["an error", "another model's"],
)
def test_not_everything_is_kept(tmp_path: Path, body: Any, error: RowError | None):
    assert run(tmp_path / "answers", body, error)[0] == ROW
    assert run(tmp_path / "answers", body, error)[0] == ROW
