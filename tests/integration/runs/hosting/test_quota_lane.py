"""Rows of a batch within the limits of their API key."""

import pytest

from modelserver.errors import StoreUnreachableError
from modelserver.runs.hosting.quota_lane import FIRST_ROWS, QuotaLane
from modelserver.runs.rows import Answered
from modelserver.store import Store
from modelserver.store.fleet.api_keys import (
    ApiKey,
    Use,
    add_api_key,
    note_rows,
    read_books,
    revoke_api_key,
)
from modelserver.store.server.state import connect_to
from tests.support.processes import ValkeyProcess, eventually
from tests.support.run_lanes import MemoryLane, rows

#: What a row uses, in tokens; ``run_lanes.echo`` says so.
ROW_TOKENS = 1


@pytest.fixture
def store(valkey: ValkeyProcess) -> Store:
    return connect_to(valkey.url, "ms:")


def limited(store: Store, **limits: int) -> tuple[QuotaLane, MemoryLane]:
    add_api_key(store, ApiKey("ana", **limits))
    inner = MemoryLane()
    return QuotaLane(lambda: store, inner, "ana"), inner


def settled(lane: QuotaLane) -> list[Answered]:
    """The answers that are there, written down."""
    found = lane.receive(0.0)
    lane.settle([each.number for each in found])
    return found


def test_without_limits_all_rows_go_and_are_in_the_books(store: Store):
    lane, inner = limited(store)
    lane.send(rows(100))
    assert len(settled(lane)) == 100
    assert len(inner.sent) == 100
    [used] = read_books(store, 2)  # The day may end in between.
    assert (used.key, used.model, used.requests) == ("ana", "writer", 100)
    assert used.completion_tokens == 100 * ROW_TOKENS


def test_rows_are_held_back_at_the_tokens_of_the_day(store: Store):
    lane, inner = limited(store, daily_tokens=40 * ROW_TOKENS)
    lane.send(rows(100))
    assert len(inner.sent) == FIRST_ROWS  # Nobody knows yet what a row uses.
    answered = settled(lane)
    eventually(lambda: answered.extend(settled(lane)) or len(answered) == 40)
    for _ in range(3):
        assert settled(lane) == []
    assert len(inner.sent) == 40
    add_api_key(store, ApiKey("ana", daily_tokens=1_000))
    eventually(lambda: answered.extend(settled(lane)) or len(answered) == 100)
    assert sorted(inner.sent) == list(range(100))


@pytest.mark.parametrize("limits", [{"rpm": 30}, {"tpm": 30 * ROW_TOKENS}])
def test_rows_are_held_back_at_the_limits_of_a_minute(
    store: Store, limits: dict[str, int]
):
    lane, inner = limited(store, **limits)
    lane.send(rows(100))
    eventually(lambda: settled(lane) is None or len(inner.sent) >= 30)
    assert len(inner.sent) <= 60  # A minute may end in between.


def test_of_a_revoked_key_no_rows_are_sent_until_there_is_one_again(
    store: Store, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    lane, inner = limited(store)
    lane.send(rows(10))
    assert len(settled(lane)) == 10
    revoke_api_key(store, "ana")
    lane.send(rows(30)[10:])
    assert settled(lane) == []
    assert len(inner.sent) == 10
    assert "key=ana is revoked" in caplog.text
    add_api_key(store, ApiKey("ana"))
    eventually(lambda: settled(lane) and len(inner.sent) == 30)


def test_a_key_is_at_its_limits_only_where_nothing_may_be_sent(
    store: Store, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    lane, inner = limited(store, daily_tokens=FIRST_ROWS * ROW_TOKENS)
    lane.send(rows(100))
    assert inner.sent
    assert caplog.text == ""
    eventually(lambda: settled(lane) is None or "at its limits" in caplog.text)
    assert len(inner.sent) == FIRST_ROWS


def test_what_is_used_elsewhere_holds_back_rows(store: Store):
    lane, inner = limited(store, daily_tokens=10)
    note_rows(store, "ana", {"other": Use(1, 5, 5)})
    lane.send(rows(5))
    assert inner.sent == []


def test_held_rows_are_not_sent_after_a_cancellation(store: Store):
    lane, inner = limited(store, daily_tokens=10)
    lane.send(rows(100))
    sent = len(inner.sent)
    assert lane.cancel() == 100
    add_api_key(store, ApiKey("ana"))
    settled(lane)
    assert len(inner.sent) == sent


def test_rows_that_could_not_be_sent_are_the_callers_again(store: Store):
    add_api_key(store, ApiKey("ana"))
    is_down = True

    def step(call: str) -> None:
        if call == "send" and is_down:
            raise StoreUnreachableError("no Redis")

    inner = MemoryLane(step=step)
    lane = QuotaLane(lambda: store, inner, "ana")
    with pytest.raises(StoreUnreachableError):
        lane.send(rows(10))
    is_down = False
    assert settled(lane) == []
    lane.send(rows(10))
    assert len(settled(lane)) == len(inner.sent) == 10
