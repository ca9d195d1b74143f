"""Engines of one host, and who gets the next request."""

import asyncio
import time
from dataclasses import replace

import pytest

from modelserver.values import EngineReport, EngineState
from workers.engines.engine_slot import (
    FAULTS_IN_A_ROW,
    FIRST_SUSPICION_SECONDS,
    EngineSlot,
)
from workers.engines.failures import Culprit, FailedRequest, FaultShares
from workers.engines.roster import Roster

BIG = EngineReport("big", "writer", "here", EngineState.READY, incarnation=1, limit=8)
SMALL = replace(BIG, id="small", limit=2)


def roster(*engines: EngineReport) -> Roster:
    here = Roster("here")
    here.update({engine.id: engine for engine in engines})
    return here


def begin(slot: EngineSlot | None, number: int) -> None:
    assert slot
    for _ in range(number):
        slot.begin(time.monotonic())


def test_only_ready_engines_of_this_host_count():
    here = roster(
        BIG,
        replace(BIG, id="elsewhere", host="there", model="foreign"),
        replace(BIG, id="starting", state=EngineState.STARTING, model="young"),
        replace(BIG, id="draining", state=EngineState.DRAINING, model="old"),
    )
    assert here.models() == {"writer"}
    assert here.capacity("writer") == 8
    assert here.capacity("foreign") == here.capacity("young") == 0
    assert here.choose("old") is None


def test_a_held_engine_gets_nothing_and_counts_for_nothing():
    here = roster(replace(BIG, hold="draining: slow"), SMALL)
    assert here.choose("writer") is here.slots["small"]
    assert here.capacity("writer") == 2
    here.update({"big": BIG})
    assert here.capacity("writer") == 8


def test_a_held_engine_keeps_what_it_has():
    here = roster(BIG)
    begin(here.slots["big"], 3)
    here.update({"big": replace(BIG, hold="draining: slow")})
    assert here.slots["big"].inflight == 3
    assert here.models() == frozenset()


def test_an_engine_whose_requests_were_called_off_gets_nothing():
    here = roster(replace(BIG, abort=1))
    assert here.choose("writer") is None
    here.update({"big": replace(BIG, abort=1, incarnation=2)})
    assert here.choose("writer") is here.slots["big"]


@pytest.mark.parametrize(("abort", "ends"), [(1, True), (2, False), (0, False)])
def test_requests_are_called_off_the_incarnation_that_is_named(abort: int, ends: bool):
    async def one_request() -> bool:
        here = roster(BIG)
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                here.slots["big"].timeouts.add(timeout)
                here.update({"big": replace(BIG, abort=abort)})
                here.update({"big": replace(BIG, abort=abort)})
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        except TimeoutError:
            return True
        return False

    assert asyncio.run(one_request()) is ends


def test_a_bigger_engine_gets_more():
    here = roster(BIG, SMALL)
    for _ in range(10):
        begin(here.choose("writer"), 1)
    assert here.slots["big"].inflight == 8
    assert here.slots["small"].inflight == 2


def test_an_engine_to_avoid_is_chosen_only_if_there_is_no_other():
    here = roster(BIG, SMALL)
    begin(here.slots["small"], 2)
    chosen = here.choose("writer", avoid=["big"])
    assert chosen is here.slots["small"]
    assert here.choose("writer", avoid=["big", "small"]) is here.slots["big"]


def test_a_suspected_engine_gets_nothing_and_counts_for_nothing():
    here = roster(BIG)
    here.slots["big"].suspect(time.monotonic(), began=time.monotonic())
    assert here.choose("writer") is None
    assert here.capacity("writer") == 0
    assert here.models() == frozenset()
    wait = here.next_change()
    assert wait is not None
    assert 0 < wait <= FIRST_SUSPICION_SECONDS


def test_suspicion_doubles_up_to_a_bound_and_ends_with_an_answer():
    slot = EngineSlot(BIG, seen_at=0)
    waits = []
    for now in range(100, 900, 100):
        slot.suspect(now, began=now - 1)
        slot.suspect(now, began=now - 2)  # The same event.
        waits.append(slot.suspect_until - now)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    slot.end(slot.begin(now=900), now=901, well=True)
    slot.suspect(now=1000, began=950)
    assert slot.suspect_until == 1001


def test_what_is_in_flight_survives_a_new_report_but_not_a_new_incarnation():
    here = roster(BIG)
    begin(here.slots["big"], 3)
    here.update({"big": replace(BIG, limit=4)})
    assert here.slots["big"].inflight == 3
    assert here.capacity("writer") == 4
    here.update({"big": replace(BIG, incarnation=2)})
    assert here.slots["big"].inflight == 0
    here.update({})
    assert here.slots == {}


def test_an_end_that_comes_twice_counts_once():
    slot = EngineSlot(BIG, seen_at=0)
    first, _ = slot.begin(now=1), slot.begin(now=2)
    slot.end(first, now=3, well=False)
    slot.end(first, now=4, well=False)
    assert slot.inflight == 1
    assert slot.finished_at == 0


def test_loads_tell_what_is_in_flight_the_oldest_and_the_last_good_end():
    here = roster(BIG)
    now = time.monotonic()
    slot = here.slots["big"]
    slot.begin(now - 5)
    slot.begin(now - 1)
    slot.end(slot.begin(now - 4), now - 3, well=True)
    inflight, oldest, idle = here.loads()["big"]
    assert inflight == 2
    assert 5 <= oldest < 8
    assert 3 <= idle < 6


def test_a_full_engine_is_waited_for_in_line():
    async def two_for_one_place() -> list[str]:
        here = Roster("a")
        here.update({"e0": EngineReport("e0", "m", "a", EngineState.READY, 1, limit=1)})
        order = []

        async def one(name: str) -> None:
            slot = await here.admit("m")
            assert slot is not None
            number = slot.begin(0.0)
            order.append(name)
            await asyncio.sleep(0)
            assert slot.inflight == 1
            slot.end(number, 1.0, well=True)
            here.release("m")

        await asyncio.gather(one("first"), one("second"), one("third"))
        return order

    assert asyncio.run(two_for_one_place()) == ["first", "second", "third"]


def test_who_waits_is_told_when_the_engine_goes():
    async def waits_in_vain() -> object:
        here = Roster("a")
        here.update({"e0": EngineReport("e0", "m", "a", EngineState.READY, 1, limit=1)})
        slot = await here.admit("m")
        assert slot is not None
        slot.begin(0.0)
        waiting = asyncio.create_task(here.admit("m"))
        await asyncio.sleep(0)
        here.update({})
        return await waiting

    assert asyncio.run(waits_in_vain()) is None


def test_a_place_is_not_lost_on_one_who_gave_up():
    async def the_second_gives_up() -> bool:
        here = Roster("a")
        here.update({"e0": EngineReport("e0", "m", "a", EngineState.READY, 1, limit=1)})
        slot = await here.admit("m")
        assert slot is not None
        number = slot.begin(0.0)
        second = asyncio.create_task(here.admit("m"))
        third = asyncio.create_task(here.admit("m"))
        await asyncio.sleep(0)
        slot.end(number, 1.0, well=True)
        here.release("m")
        second.cancel()
        return await third is slot

    assert asyncio.run(the_second_gives_up())


def test_nobody_waits_in_line_for_a_worker_that_ends():
    async def closes_on_one() -> object:
        here = Roster("a")
        here.update({"e0": EngineReport("e0", "m", "a", EngineState.READY, 1, limit=1)})
        slot = await here.admit("m")
        assert slot is not None
        slot.begin(0.0)
        waiting = asyncio.create_task(here.admit("m"))
        await asyncio.sleep(0)
        here.close()
        return await waiting

    assert asyncio.run(closes_on_one()) is None


def fail(here: Roster, name: str, number: int) -> list[FailedRequest]:
    marks = [FailedRequest() for _ in range(number)]
    for mark in marks:
        here.note_fault(here.slots[name], time.monotonic(), mark, FaultShares())
    return marks


def test_an_engine_that_fails_again_and_again_is_left_alone_for_a_while():
    here = roster(BIG, SMALL)
    fail(here, "big", FAULTS_IN_A_ROW - 1)
    assert here.capacity("writer") == 10
    fail(here, "big", 1)
    assert here.choose("writer") is here.slots["small"]
    assert here.capacity("writer") == 2
    left = here.next_change()
    assert left is not None
    assert 0 < left <= FIRST_SUSPICION_SECONDS


def test_faults_of_the_same_moment_count_as_one_suspicion():
    here = roster(BIG, SMALL)
    fail(here, "big", 4 * FAULTS_IN_A_ROW)
    assert here.slots["big"].suspicions == 1


def test_requests_that_fail_together_are_one_fault():
    here = roster(BIG, SMALL)
    began = time.monotonic()
    for _ in range(4 * FAULTS_IN_A_ROW):
        here.note_fault(here.slots["big"], began, FailedRequest(), FaultShares())
    assert len(here.slots["big"].faults) == 1
    assert here.slots["big"].suspicions == 0


def test_faults_with_answers_between_them_are_no_reason():
    here = roster(BIG, SMALL)
    for _ in range(FAULTS_IN_A_ROW):
        fail(here, "big", FAULTS_IN_A_ROW - 1)
        number = here.slots["big"].begin(1.0)
        here.slots["big"].end(number, 2.0, well=True)
    assert here.capacity("writer") == 10


def test_the_last_usable_engine_gets_requests_however_often_it_fails():
    here = roster(BIG, replace(SMALL, hold="draining: slow"))
    fail(here, "big", 10 * FAULTS_IN_A_ROW)
    assert here.choose("writer") is here.slots["big"]
    here.update({"big": BIG, "other": replace(BIG, id="other", model="other")})
    fail(here, "big", 10 * FAULTS_IN_A_ROW)
    assert here.choose("writer") is here.slots["big"]


def test_two_that_fail_are_not_both_left_alone():
    here = roster(BIG, SMALL)
    fail(here, "big", 10 * FAULTS_IN_A_ROW)
    fail(here, "small", 10 * FAULTS_IN_A_ROW)
    assert here.choose("writer") is here.slots["small"]


def test_faults_of_requests_at_fault_are_no_reason_for_suspicion():
    here = roster(BIG, SMALL)
    marks = fail(here, "big", FAULTS_IN_A_ROW)
    assert here.capacity("writer") == 2
    here.slots["big"].take_back(marks[0])
    assert here.capacity("writer") == 10
    assert here.slots["big"].suspicions == 0
    fail(here, "big", 1)
    assert here.capacity("writer") == 2


def test_where_many_requests_are_at_fault_more_in_a_row_are_needed():
    here = roster(BIG, SMALL)
    record = here.slots["big"].record
    at_fault = FailedRequest(culprit=Culprit.REQUEST)
    record.recent.extend(5 * [at_fault, None, None, None, None])
    fail(here, "big", FAULTS_IN_A_ROW)
    assert here.capacity("writer") == 10
    fail(here, "big", FAULTS_IN_A_ROW)
    assert here.capacity("writer") == 2


def test_engines_of_other_hosts_are_known_by_name():
    there = replace(BIG, id="there", host="there")
    here = roster(BIG, there, replace(there, id="held", hold="draining: slow"))
    assert here.elsewhere["writer"] == {("there", 1)}
    assert here.has_untried("writer", {("there", 1)})
    assert not here.has_untried("writer", {("big", 1)})
    here.update({"big": BIG})
    assert not here.elsewhere["writer"]


# Shares: what this worker has of the engines, where others of its host have theirs.


def test_a_share_bounds_what_is_begun_and_pulled():
    here = roster(BIG, SMALL)
    here.take_shares({"big": 3, "small": 0})
    assert here.capacity("writer") == 3
    assert here.choose("writer") is here.slots["big"]
    here.take_shares({"big": 30, "small": 1})
    assert here.capacity("writer") == 9
    here.update({"big": replace(BIG, limit=2), "small": SMALL})
    assert here.capacity("writer") == 3


def test_an_engine_of_which_others_have_all_is_theirs():
    here = roster(SMALL)
    here.take_shares({"small": 0})
    assert here.models() == frozenset()
    assert here.choose("writer") is None
    assert here.is_served("writer")
    assert here.places_of_others("writer") == {("small", 1)}
    here.take_shares({"small": 1})
    assert here.models() == {"writer"}
    assert here.places_of_others("writer") == set()


def test_a_new_engine_gets_nothing_before_its_share_is_known():
    here = roster(BIG)
    changes: list[str] = []
    here.on_limits = lambda: changes.append("")
    here.take_shares({"big": 8})
    here.update({"big": BIG})
    assert changes == []
    here.update({"big": BIG, "small": SMALL})
    assert changes == [""]
    assert here.capacity("writer") == 8


def test_what_waits_begins_with_a_larger_share_and_a_lease():
    async def story() -> None:
        here = roster(BIG)
        here.take_shares({"big": 1})
        begin(await here.admit("writer"), 1)
        waiting = asyncio.create_task(here.admit("writer"))
        await asyncio.sleep(0)
        assert here.waiting("writer") == 1
        here.trust_shares(0.0)
        here.take_shares({"big": 2})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        here.trust_shares(time.monotonic() + 60)
        assert await waiting is here.slots["big"]
        here.trust_shares(0.0)
        last = asyncio.create_task(here.admit("writer"))
        await asyncio.sleep(0)
        here.take_shares({"big": 0})
        assert await last is None

    asyncio.run(story())


def test_one_worker_of_a_host_runs_the_suspects_of_a_model():
    here = roster(BIG)
    assert here.leads("writer")
    here.take_shares({"big": 4})
    assert not here.leads("writer")
    here.take_shares({"big": 4, "suspects:writer": 1})
    assert here.leads("writer")
