"""A run's way to the fleet and back, with a healthy worker."""

import json
import time
from collections.abc import Iterable

import pytest

from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.runs.cutting import PARTS_OF_ENGINE
from modelserver.runs.lane import Lane
from modelserver.runs.rows import Row
from modelserver.store.fleet.workers import read_backlog
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually
from tests.support.runs import (
    assert_answered,
    collect,
    kinds,
    make_rows,
    open_lane,
)
from tests.support.shared_fleet import block_writer
from tests.support.workers import PATIENCE, FleetSite

#: Far beyond the numbers of rows.
FAR = 1 << 40


def test_rows_of_all_kinds_are_answered(fleet: FleetSite):
    lane = open_lane(fleet)
    said = [{"role": "user", "content": "hi"}]
    lane.send(
        [
            *make_rows(range(300), max_tokens=4),
            Row(300, EMBED, "a text", {}),
            Row(301, EMBED, ["a text", "another"], {}),
            Row(302, CHAT, said, {"model": "other"}),
            Row(FAR, COMPLETE, 'with "quotes"\n and 中文', {"raw": True, "n": 2}),
        ]
    )
    found = collect(lane, 304)
    vector = fleet.embed.delay("a text").get(timeout=PATIENCE)
    assert found.pop(300).value == vector
    assert found.pop(301).value[0] == vector
    assert found.pop(302).value == answer_text("hi")
    raw = found.pop(FAR).value
    assert (raw["model"], raw["engine"], len(raw["choices"])) == (
        "writer",
        "writer-0",
        2,
    )
    assert_answered(found, range(300))


def is_left(fleet: FleetSite, rest: int) -> bool:
    """Whether so many rows wait, but for those that the worker has at hand.

    One is at hand, and what its bundle holds besides: its size goes by the limits that
    the lane has read a while ago, which may be those of the test before.
    """
    return rest - 64 // PARTS_OF_ENGINE <= read_backlog(fleet.store, "writer") <= rest


def test_a_run_of_weight_3_gets_three_shares(fleet: FleetSite):
    block_writer(fleet, limit=8)
    light, heavy = open_lane(fleet), open_lane(fleet, weight=3)
    light.send(make_rows(range(71_000, 71_200)))
    heavy.send(make_rows(range(72_000, 72_200)))
    engine = fleet.engines["writer-0"]
    engine.fault()
    assert_answered(collect(light, 200), range(71_000, 71_200))
    assert_answered(collect(heavy, 200), range(72_000, 72_200))
    executed = engine.stats()["executed"]
    first = [name for name in executed if name.startswith(("row 71", "row 72"))]
    share = sum(name.startswith("row 72") for name in first[40:160])
    assert 70 < share < 110


def test_a_run_of_weight_3_is_cancelled_whole(fleet: FleetSite):
    block_writer(fleet, limit=8)
    lane = open_lane(fleet, weight=3)
    lane.send(make_rows(range(90)))
    eventually(lambda: fleet.in_flight("writer-0") == 8, PATIENCE)
    eventually(lambda: is_left(fleet, 90 - 8), PATIENCE)
    waiting = read_backlog(fleet.store, "writer")
    assert lane.cancel() == waiting > 60
    assert read_backlog(fleet.store, "writer") == 0


def test_what_was_sent_is_not_sent_again(fleet: FleetSite):
    lane = open_lane(fleet)
    lane.send(make_rows(range(5000, 5100, 2)))
    lane.send(make_rows(range(5000, 5100)))
    assert_answered(collect(lane, 100), range(5000, 5100))
    again = Lane(fleet.app, lane.run)
    again.send(make_rows(range(5090, 5110)))
    assert_answered(collect(again, 10), range(5100, 5110))
    assert again.receive(0.2) == []
    executed = fleet.engines["writer-0"].stats()["executed"]
    assert {executed[f"row {number}"] for number in range(5000, 5110)} == {1}


def test_answers_come_again_until_they_are_settled(fleet: FleetSite):
    lane = open_lane(fleet)
    lane.send(make_rows(range(40)))
    seen: set[int] = set()

    def all_seen() -> bool:
        seen.update(each.number for each in lane.receive(0.2))
        return len(seen) == 40

    eventually(all_seen, PATIENCE)
    lane.settle(range(10, 20))
    successor = Lane(fleet.app, lane.run)
    rest = [*range(10), *range(20, 40)]
    assert_answered(collect(successor, 30), rest)
    assert Lane(fleet.app, lane.run).receive(0.1) == []


def test_a_row_that_is_wrong_ends_by_its_own_error(fleet: FleetSite):
    lane = open_lane(fleet)
    lane.send(
        [
            *make_rows(range(20)),
            Row(20, COMPLETE, "", {}),
            Row(21, COMPLETE, "a", {"model": "none such"}),
            Row(22, COMPLETE, "a", {"max_tokens": 100_000}),
            Row(23, COMPLETE, "a", {"temperatur": 1}),
            Row(24, COMPLETE, "\ud800", {}),
            Row(25, COMPLETE, ["no", "text"], {}),
        ]
    )
    found = collect(lane, 26)
    assert {number: kind for number, kind in kinds(found).items() if kind} == {
        20: "RequestError",
        21: "UnknownModelError",
        22: "RequestError",
        23: "RequestError",
        24: "RequestError",
        25: "RequestError",
    }


def test_waiting_rows_are_counted_one_by_one(fleet: FleetSite):
    engine = block_writer(fleet, limit=16)
    lane = open_lane(fleet)
    lane.send(make_rows(range(200)))
    eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
    eventually(lambda: is_left(fleet, 200 - 16), PATIENCE)
    engine.fault()
    assert_answered(collect(lane, 200), range(200))
    assert read_backlog(fleet.store, "writer") == 0


def test_a_cancelled_run_ends_what_has_not_begun(fleet: FleetSite):
    engine = block_writer(fleet, limit=16)
    lane = open_lane(fleet)
    lane.send(make_rows(range(100)))
    eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
    eventually(lambda: is_left(fleet, 100 - 16), PATIENCE)
    # From now on: what is sent earlier has its share of the engine.
    other = open_lane(fleet)
    other.send(make_rows(range(1000, 1010)))
    assert 70 <= lane.cancel() <= 84
    cancelled = collect(lane, 84)
    assert set(kinds(cancelled).values()) == {"cancelled"}
    engine.fault()
    begun = collect(lane, 16)
    assert set(kinds(begun).values()) == {""}
    assert_answered(collect(other, 10), range(1000, 1010))
    # What is sent from now on is run.
    lane.send(make_rows(sorted(cancelled)))
    assert_answered(collect(lane, 84), sorted(cancelled))


def test_a_deadline_ends_rows_where_they_are(fleet: FleetSite):
    engine = block_writer(fleet, limit=16)
    lane = open_lane(fleet, deadline=time.time() + 2)
    lane.send(make_rows(range(60)))
    unhurried = open_lane(fleet)
    unhurried.send(make_rows(range(1000, 1010)))
    found = collect(lane, 60)
    assert set(kinds(found).values()) == {"DeadlineExceededError"}
    engine.fault()
    assert_answered(collect(unhurried, 10), range(1000, 1010))


@pytest.mark.parametrize("priority", [None, 0, 9])
def test_rows_have_a_priority(fleet: FleetSite, priority: int | None):
    lane = open_lane(fleet, priority=priority)
    lane.send(make_rows(range(10)))
    assert_answered(collect(lane, 10), range(10))


def test_the_places_are_those_of_ready_engines(fleet: FleetSite):
    assert open_lane(fleet).places() == {"writer": 64, "vectors": 64, "other": 64}


def test_rows_of_a_revoked_message_end(fleet: FleetSite):
    engine = block_writer(fleet, limit=16)
    lane = open_lane(fleet)
    lane.send(make_rows(range(40)))
    eventually(lambda: fleet.in_flight("writer-0") == 16, PATIENCE)
    eventually(lambda: is_left(fleet, 40 - 16), PATIENCE)
    found = [*_ids(fleet.store.client.lrange("ms:writer", 0, -1))]
    for key in fleet.store.client.scan_iter(fleet.store.keys.unacked("*")):
        values = fleet.store.client.hvals(key)
        found += _ids(value.partition("\n")[2] for value in values)
    fleet.app.control.revoke(found, terminate=True)
    ended = collect(lane, 40)
    assert set(kinds(ended).values()) == {"cancelled"}
    engine.fault()
    eventually(lambda: fleet.held() == 0, PATIENCE)


def _ids(messages: Iterable[str]) -> list[str]:
    return [json.loads(each)["headers"]["id"] for each in messages]
