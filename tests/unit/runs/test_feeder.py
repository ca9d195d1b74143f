"""A window of rows under way."""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

import pytest

from modelserver.errors import StoreUnreachableError
from modelserver.runs.feeder import (
    HELD_WINDOWS,
    MOST_ASIDE,
    PLACES_TIMES,
    SMALLEST_WINDOW,
    Feeder,
    find_block,
)
from modelserver.runs.rows import Answered, Row, RowError
from tests.support.run_lanes import MemoryLane, rows


def numbers(feeder: Feeder) -> list[int]:
    return [each.number for block in feeder for each in block]


def test_every_row_is_sent_and_answered_once():
    lane = MemoryLane(most=7)
    assert sorted(numbers(Feeder(lane, rows(1_000)))) == list(range(1_000))
    assert sorted(lane.sent) == list(range(1_000))


@pytest.mark.parametrize("places", [0, 10, 1_000])
def test_no_more_is_under_way_than_the_window(places: int):
    lane = MemoryLane(most=5, places=places)
    list(Feeder(lane, rows(5_000)))
    window = max(SMALLEST_WINDOW, PLACES_TIMES * places)
    assert lane.most_open <= window
    assert lane.most_open > window // 2


def test_an_endless_source_is_pulled_as_answers_come():
    pulled = itertools.count()
    endless = (Row(next(pulled), "modelserver.complete", "x") for _ in iter(int, 1))
    feeder = Feeder(MemoryLane(most=10), endless)
    for _ in itertools.islice(feeder, 20):
        pass
    assert next(pulled) < 20 * 10 + 2 * SMALLEST_WINDOW


@pytest.mark.parametrize("is_mixed", [False, True])
def test_no_rows_are_pulled_that_cannot_be_sent(is_mixed: bool):
    pulled = itertools.count()
    endless = mixed("writer" for _ in pulled)
    feeder = Feeder(MemoryLane(most=10, places=8), endless, is_mixed=is_mixed)
    for _ in itertools.islice(feeder, 20):
        pass
    assert next(pulled) <= 20 * 10 + SMALLEST_WINDOW + 1


def test_answers_that_are_held_back_hold_back_rows():
    lane = MemoryLane(most=10)
    feeder = Feeder(lane, rows(10_000))
    for block in feeder:
        feeder.held += len(block)
        if not feeder.under_way:
            break
    assert len(lane.sent) <= HELD_WINDOWS * SMALLEST_WINDOW


def test_fewer_rows_go_together_towards_the_end():
    blocks = [find_block(1_536, left) for left in (100_000, 5_000, 500, 50, 5, 0)]
    assert blocks == sorted(blocks, reverse=True)
    assert blocks[0] > 300
    assert blocks[-1] == 1


def test_a_row_that_is_wrong_is_its_own_answer():
    wrong = Answered(1, error=RowError("RequestError", "it is empty"))
    first, _, last = rows(3)
    lane = MemoryLane()
    assert sorted(numbers(Feeder(lane, [first, wrong, last]))) == [0, 1, 2]
    assert lane.sent == [0, 2]


def test_a_server_that_is_silent_for_a_while_loses_nothing():
    calls, number = random.Random(7), itertools.count()

    def step(_: str) -> None:
        if next(number) and calls.random() < 0.1:
            raise StoreUnreachableError("it does not answer")

    lane = MemoryLane(most=20, step=step)
    assert sorted(set(numbers(Feeder(lane, rows(300))))) == list(range(300))


@pytest.mark.parametrize("answered", [0, 3])
def test_a_server_that_stays_silent_is_told(answered: int):
    calls = iter(range(answered))

    def step(_: str) -> None:
        if next(calls, None) is None:
            raise StoreUnreachableError("it does not answer")

    patience = 0.0 if answered else None
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        numbers(Feeder(MemoryLane(step=step), rows(3_000), patience=patience))


class DeafLane(MemoryLane):
    """Rows of the model "deaf" are never answered."""

    def send(self, rows: Sequence[Row]) -> None:
        heard = [row for row in rows if row.parameters["model"] != "deaf"]
        self.sent += [row.number for row in rows if row not in heard]
        super().send(heard)


def mixed(models: Iterable[str]) -> Iterator[Row]:
    for number, model in enumerate(models):
        yield Row(number, "modelserver.complete", "x", {"model": model})


def first(feeder: Feeder, number: int) -> list[int]:
    blocks = itertools.islice(feeder, 5 * number)
    found = (each.number for block in blocks for each in block)
    return list(itertools.islice(found, number))


@pytest.mark.parametrize(
    "models",
    [["deaf", "writer"] * 500, ["deaf"] * 500 + ["writer"] * 500],
    ids=["mixed", "one after the other"],
)
def test_a_model_without_engines_holds_up_no_other(models: list[str]):
    lane = DeafLane(most=50)
    feeder = Feeder(lane, mixed(models), is_mixed=True)
    assert len(first(feeder, 500)) == 500
    assert set(feeder.under_way.values()) == {"deaf"}
    assert len(feeder.under_way) == SMALLEST_WINDOW


def test_rows_that_are_set_aside_are_bounded_and_sent_later():
    lane = DeafLane(most=50)
    pulled = itertools.count()
    feeder = Feeder(lane, mixed("deaf" for _ in pulled), is_mixed=True)
    for _ in itertools.islice(feeder, 5):
        pass
    assert next(pulled) <= MOST_ASIDE + 2 * SMALLEST_WINDOW
    later = MemoryLane(most=5, places=0)
    assert sorted(numbers(Feeder(later, mixed(["a"] * 300), is_mixed=True))) == [
        *range(300)
    ]


def test_it_can_be_stopped():
    feeder = Feeder(MemoryLane(most=1), rows(100))
    for _ in feeder:
        feeder.stop()
    assert len(feeder.under_way) > 10
