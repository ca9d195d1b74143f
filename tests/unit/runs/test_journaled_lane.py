"""Rows whose answers a journal keeps from one call to the next."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import BatchFileError
from modelserver.runs.answer_cache import RequestKeys
from modelserver.runs.feeder import Feeder
from modelserver.runs.journaled_lane import JournaledLane
from modelserver.runs.rows import Row
from tests.support.run_lanes import MODELS, MemoryLane, rows

#: By number: the text of each answer, None for an error.
Texts = dict[int, str | None]


@contextmanager
def opened(
    path: Path, lane: MemoryLane, kind: str = "map", **asked: Any
) -> Iterator[JournaledLane]:
    keys = RequestKeys(lambda: MODELS)
    made = JournaledLane(path, kind, "prompts", asked, keys, lambda _: lane)
    made.open()
    try:
        yield made
    finally:
        made.close(is_over=False)


def texts(lane: JournaledLane, given: list[Row], blocks: int = 1_000) -> Texts:
    found: Texts = {}
    for block, _ in zip(Feeder(lane, given, len(given)), range(blocks), strict=False):
        for each in block:
            value = each.value and each.value["choices"][0]["text"]
            found[each.number] = value
    return found


def echoed(given: list[Row]) -> Texts:
    return {row.number: str(row.payload) for row in given}


def test_what_was_answered_is_not_sent_again(tmp_path: Path):
    given, lane = rows(300), MemoryLane(most=50)
    with opened(tmp_path / "j", lane) as journaled:
        first = texts(journaled, given, blocks=3)
    assert 0 < len(first) < 300
    with opened(tmp_path / "j", lane) as journaled:
        assert texts(journaled, given) == echoed(given)
    # What was under way is collected, not asked anew.
    assert len(lane.sent) == len(set(lane.sent)) == 300
    with opened(tmp_path / "j", lane) as journaled:
        assert texts(journaled, given) == echoed(given)
    assert len(lane.sent) == 300


def test_rows_may_be_shuffled_left_out_and_added(tmp_path: Path):
    given, lane = rows(20), MemoryLane()
    with opened(tmp_path / "j", lane) as journaled:
        texts(journaled, given)
    others = [replace(row, number=20 - row.number) for row in rows(25)[5:]]
    with opened(tmp_path / "j", lane) as journaled:
        assert texts(journaled, others) == echoed(others)
    assert len(lane.sent) == 25


def test_a_row_that_failed_is_asked_again(tmp_path: Path):
    bad, lane = (
        Row(0, "modelserver.complete", "fail", {"model": "writer"}),
        MemoryLane(),
    )
    for _ in range(2):
        with opened(tmp_path / "j", lane) as journaled:
            assert texts(journaled, [bad]) == {0: None}
    assert len(set(lane.sent)) == 2


def test_rows_of_the_same_text_have_answers_of_their_own(tmp_path: Path):
    row, lane = rows(1)[0], MemoryLane()
    given = [replace(row, number=number) for number in range(3)]
    for _ in range(2):
        with opened(tmp_path / "j", lane) as journaled:
            assert texts(journaled, given) == echoed(given)
    assert len(set(lane.sent)) == 3


def test_redis_forgets_an_answer_once_the_journal_has_it(tmp_path: Path):
    lane = MemoryLane()
    with opened(tmp_path / "j", lane) as journaled:
        texts(journaled, rows(10))
    assert sorted(lane.settled) == sorted(lane.sent)


def test_other_parameters_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for more in ({}, {"deadline": 5}, {"max_tokens": 9}):
        caplog.clear()
        with opened(tmp_path / "j", MemoryLane(), model="writer", **more):
            pass
        assert ["other parameters" in each for each in caplog.messages] == (
            [True] if "max_tokens" in more else []
        )


def test_rows_that_are_gone_are_told_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with opened(tmp_path / "j", MemoryLane()) as journaled:
        texts(journaled, rows(3))
    keys = RequestKeys(lambda: MODELS)
    arguments = ("map", "prompts", {}, keys, lambda _: MemoryLane())
    journaled = JournaledLane(tmp_path / "j", *arguments)
    journaled.open()
    with caplog.at_level(logging.WARNING):
        texts(journaled, rows(1))
        journaled.close(is_over=True)
    (said,) = caplog.messages
    assert "has 2 prompts that are not among these, 2 of them answered" in said


def test_a_journal_of_another_call_is_refused(tmp_path: Path):
    with opened(tmp_path / "j", MemoryLane()):
        pass
    told = r"is a journal of map_prompts\(\), not of embed_texts\(\)"
    with (
        pytest.raises(BatchFileError, match=told),
        opened(tmp_path / "j", MemoryLane(), kind="embed"),
    ):
        pass
