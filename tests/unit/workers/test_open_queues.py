"""Which queues a worker pulls from."""

import pytest

from modelserver.store.batch import MOST_BYTES, Delivery
from workers.open_queues import LOOK_SECONDS, OpenQueues, is_cut_short

MODELS = ["a", "b", "c"]


@pytest.fixture
def queues() -> OpenQueues:
    """All were looked into at 9.0."""
    found = OpenQueues()
    assert found.take(MODELS, 9.0) == MODELS
    return found


def test_only_a_queue_that_rang_is_asked_once(queues: OpenQueues) -> None:
    queues.open("b")
    assert queues.take(MODELS, 9.1) == ["b"]
    assert queues.take(MODELS, 9.2) == []


def test_the_queue_that_rang_last_is_first(queues: OpenQueues) -> None:
    for queue in ("b", "a", "c", "a"):
        queues.open(queue)
    assert queues.take(MODELS, 9.1) == ["a", "c", "b"]


def test_a_bell_for_any_queue_opens_all_behind_one_that_rang(
    queues: OpenQueues,
) -> None:
    queues.open("c")
    queues.open("")
    assert queues.take(MODELS, 9.1) == ["c", "a", "b"]
    assert queues.take(MODELS, 9.2) == []


def test_without_a_bell_all_are_asked_now_and_then(queues: OpenQueues) -> None:
    assert queues.take(MODELS, 9.0 + LOOK_SECONDS / 2) == []
    assert queues.take(MODELS, 9.0 + LOOK_SECONDS) == MODELS
    assert queues.take(MODELS, 9.1 + LOOK_SECONDS) == []


def test_a_busy_queue_does_not_keep_the_others_from_being_asked(
    queues: OpenQueues,
) -> None:
    queues.open("b")
    queues.take(MODELS, 9.0 + LOOK_SECONDS / 2)
    queues.open("b")
    assert queues.take(MODELS, 9.0 + LOOK_SECONDS) == ["b", "a", "c"]


def test_a_queue_without_room_is_asked_once_there_is_room(queues: OpenQueues) -> None:
    assert not queues.make_room()
    queues.wait_for_room("b")
    assert queues.take(MODELS, 9.1) == []
    assert queues.make_room()
    assert queues.take(MODELS, 9.2) == ["b"]
    assert not queues.make_room()


def test_a_bell_while_a_queue_is_pulled_from_opens_it_again(queues: OpenQueues) -> None:
    queues.open("b")
    assert queues.take(MODELS, 9.1) == ["b"]
    queues.open("b")
    assert queues.take(MODELS, 9.2) == ["b"]


def test_a_bell_of_another_workers_queue_is_not_kept(queues: OpenQueues) -> None:
    queues.open("elsewhere")
    assert queues.take(MODELS, 9.1) == []
    assert queues.take([*MODELS, "elsewhere"], 9.2) == []


def test_a_pull_is_cut_short_by_room_or_bytes() -> None:
    one, large = Delivery("1", "m", b"{}"), Delivery("2", "m", b"x" * MOST_BYTES)
    bundle = Delivery("3", "m", b'{"rows":32,"body":""}')
    assert not is_cut_short([], 1)
    assert not is_cut_short([one], 2)
    assert is_cut_short([one], 1)
    assert is_cut_short([bundle, one], 33)
    assert is_cut_short([large], 9)
