"""Whether a request or its engines are to blame."""

import orjson
import pytest

from modelserver.engine_protocol import EngineFault
from modelserver.messaging.answers import UnsoundVectorsError
from modelserver.values import EngineReport, EngineState, Outcome
from workers.engines.engine_slot import EngineSlot
from workers.engines.failures import Culprit, FailedRequest
from workers.requests.carried_tries import from_header, to_header
from workers.requests.own_fault import FailedTries, ModelFailures

WRONG = EngineFault("status 500: a bad day", way="status 500")


def slot(name: str = "m-0", well: int = 0, failed: int = 0) -> EngineSlot:
    """An engine that answered and failed so many others of late."""
    report = EngineReport(name, "m", "h", EngineState.READY, incarnation=1)
    made = EngineSlot(report, seen_at=0.0)
    for _ in range(well):
        made.record.note_answer(0.1)
    made.record.recent.extend(FailedRequest() for _ in range(failed))
    return made


def answer(slot: EngineSlot, began: float, ended: float) -> None:
    """The engine answers another request."""
    slot.end(slot.begin(began), ended, well=True)


def fail(
    tries: FailedTries, slot: EngineSlot, now: float, fault: EngineFault = WRONG
) -> tuple[Outcome, bool]:
    tries.note(slot, fault, now - 0.1, now, 1000 + now)
    return tries.outcome, tries.is_own_fault


COUNTED, REPEATED = Outcome.ENGINE_FAULT, Outcome.REPEATED


@pytest.mark.parametrize("well", [0, 1, 50])
def test_failing_in_the_same_way_on_two_engines_is_the_requests_own_fault(well: int):
    tries = FailedTries()
    assert fail(tries, slot("m-0", well), 1.0) == (COUNTED, False)
    assert fail(tries, slot("m-1", well), 2.0) == (REPEATED, True)


def test_failing_again_where_others_were_answered_is_the_requests_own_fault():
    tries, lone = FailedTries(), slot(well=20)
    assert fail(tries, lone, 1.0) == (COUNTED, False)
    answer(lone, 1.1, 1.5)
    assert fail(tries, lone, 2.0) == (REPEATED, True)


def probe(slot: EngineSlot, now: float) -> None:
    """The engine answers the worker's own question."""
    slot.note_probe(now)


@pytest.mark.parametrize(("well", "times"), [(1, 3), (20, 2)])
def test_where_nobody_else_is_answered_probes_tell(well: int, times: int):
    tries, lone = FailedTries(), slot(well=well)
    for now in range(1, times):
        assert fail(tries, lone, now) == (COUNTED if now == 1 else REPEATED, False)
        probe(lone, now + 0.5)
    assert fail(tries, lone, times) == (REPEATED, True)


def test_an_engine_that_has_answered_probes_only_says_nothing():
    tries, young = FailedTries(), slot()
    for now in range(1, 20):
        assert not fail(tries, young, now)[1]
        probe(young, now + 0.5)


def test_an_engine_that_fails_at_all_but_probes_stays_to_blame():
    broken, model, verdicts = slot(well=50), ModelFailures(), []
    for number in range(10):
        tries = FailedTries(model)
        for part in range(3):
            verdict = fail(tries, broken, 10.0 * number + part + 1)[1]
            probe(broken, 10.0 * number + part + 1.5)
        verdicts.append(verdict)
    assert sum(verdicts) <= 3
    assert not any(verdicts[3:])


def test_an_engine_that_answers_nothing_stays_to_blame():
    tries, lone = FailedTries(), slot()
    assert fail(tries, lone, 1.0) == (COUNTED, False)
    for now in range(2, 20):
        assert fail(tries, lone, now) == (REPEATED, False)


def test_engines_that_fail_at_others_too_stay_to_blame():
    tries = FailedTries()
    one, other = slot("m-0", 40, failed=20), slot("m-1", 40, failed=20)
    for now in range(1, 10):
        assert not fail(tries, (one, other)[now % 2], now)[1]
        answer(one, now + 0.1, now + 0.5)
        answer(other, now + 0.1, now + 0.5)


def test_one_engine_that_fails_at_all_says_nothing_of_a_request():
    tries, broken, sound = FailedTries(), slot("m-0", 0, failed=10), slot("m-1", 60)
    assert fail(tries, broken, 1.0) == (COUNTED, False)
    assert fail(tries, sound, 2.0) == (COUNTED, False)
    for moment in (2.5, 3.5):
        answer(sound, moment, moment)
        told = fail(tries, sound, moment + 0.5)
    assert told == (REPEATED, True)


def test_another_way_says_nothing():
    tries = FailedTries()
    fail(tries, slot("m-0", 50), 1.0)
    other = EngineFault("not JSON", way="not JSON")
    assert fail(tries, slot("m-1", 50), 2.0, other) == (COUNTED, False)


@pytest.mark.parametrize("times", [3, 30])
def test_a_lost_connection_says_nothing(times: int):
    tries = FailedTries()
    lost = EngineFault("connection reset")
    for now in range(times):
        assert not fail(tries, slot(f"m-{now}", 50), now, lost)[1]


@pytest.mark.parametrize("way", ["broken off", "status 503", "status 401"])
def test_the_state_of_an_engine_says_little(way: str):
    tries, fault = FailedTries(), EngineFault("not now", way=way)
    found = [fail(tries, slot(f"m-{n}", 50), n, fault)[1] for n in range(8)]
    assert found.index(True) in (5, 6)


def test_requests_at_fault_do_not_make_an_engine_look_bad():
    one, other = slot("m-0", 50), slot("m-1", 50)
    for now in range(1, 20):
        tries = FailedTries()
        fail(tries, one, now)
        assert fail(tries, other, now) == (REPEATED, True)
        answer(one, now + 0.1, now + 0.5)
        answer(other, now + 0.1, now + 0.5)
    assert one.record.share_of_failures(FailedRequest(), tries.model.shares) < 0.001


def test_where_nobody_is_answered_in_between_no_further_request_is_at_fault():
    one, other, model = slot("m-0", 50), slot("m-1", 50), ModelFailures()
    verdicts = []
    for now in range(1, 20):
        tries = FailedTries(model)
        fail(tries, one, now)
        verdicts.append(fail(tries, other, now + 0.5)[1])
    # The first can't be told from one that every engine fails at.
    assert sum(verdicts) <= 1


def test_a_text_without_a_sound_vector_is_tried_once_more():
    tries = FailedTries()
    fault = UnsoundVectorsError({3: "no vector", 5: "no vector"})
    assert fail(tries, slot("m-0", 5), 1.0, fault) == (COUNTED, False)
    again = UnsoundVectorsError({5: "all zeros", 7: "no vector"})
    assert fail(tries, slot("m-1", 5), 2.0, again) == (REPEATED, True)
    assert tries.bad_texts == {5: "all zeros"}


def test_other_texts_each_time_are_the_engines_fault():
    tries = FailedTries()
    fail(tries, slot(), 1.0, UnsoundVectorsError({3: "no vector"}))
    again = UnsoundVectorsError({4: "no vector"})
    assert fail(tries, slot(), 2.0, again) == (REPEATED, False)


def test_a_failure_that_is_answered_elsewhere_was_the_engines():
    tries, bad = FailedTries(), slot("m-0", 50)
    fail(tries, bad, 1.0)
    tries.model.answered(tries)
    assert tries.mark.culprit is Culprit.ENGINES
    assert bad.record.share_of_failures(FailedRequest(), tries.model.shares) > 0.015


def carried(tries: FailedTries) -> FailedTries:
    """The same request at another worker."""
    value = orjson.loads(orjson.dumps(to_header(tries.to_carry(1, 1))))
    return FailedTries(carried=from_header(value))


def test_what_was_tried_on_another_host_counts():
    tries = FailedTries()
    assert fail(tries, slot("m-0", 50), 1.0) == (COUNTED, False)
    there = carried(tries)
    assert there.places == {("m-0", 1)}
    assert fail(there, slot("m-1", 50), 2.0) == (REPEATED, True)
    assert there.blamed == {("m-0", 1): 1001.0}
    assert there.times == 2


def test_what_a_version_before_carried_has_no_time():
    header = {"tries": [["m-0", 1, "status 500", 1e-05]], "attempts": 1}
    there = FailedTries(carried=from_header(header))
    assert there.blamed == {("m-0", 1): 0.0}


def test_the_engines_of_another_host_may_be_bad_too():
    tries = FailedTries()
    fail(tries, slot("m-0", 40, failed=20), 1.0)
    there = carried(tries)
    assert fail(there, slot("m-1", 40, failed=20), 2.0) == (COUNTED, False)
    assert there.blamed.keys() == {("m-0", 1), ("m-1", 1)}


def test_a_text_that_got_no_vector_elsewhere_is_known_here():
    tries = FailedTries()
    fail(tries, slot("m-0", 5), 1.0, UnsoundVectorsError({3: "no vector", 5: "zeros"}))
    there = carried(tries)
    again = UnsoundVectorsError({5: "all zeros", 7: "no vector"})
    assert fail(there, slot("m-1", 5), 2.0, again) == (REPEATED, True)
    assert there.bad_texts == {5: "all zeros"}
    assert there.blamed.keys() == {("m-0", 1)}


def test_a_lost_connection_is_carried_and_stays_the_engines():
    tries = FailedTries()
    fail(tries, slot("m-0", 50), 1.0, EngineFault("connection reset"))
    there = carried(tries)
    assert there.places == {("m-0", 1)}
    assert not there.blamed
    fail(there, slot("m-1", 50), 2.0)
    assert fail(there, slot("m-2", 50), 3.0) == (REPEATED, True)
    assert there.blamed.keys() == {("m-1", 1)}


@pytest.mark.parametrize(
    "value",
    [
        *(
            "junk",
            7,
            [],
            {"tries": 5},
            {"tries": [["m", 1]]},
            {"tries": [[1, 2, 3, 4]]},
            {"tries": [["m", 1, "", 1.0, "soon"]]},
        ),
        {"tries": [], "attempts": -3, "passes": "x", "texts": [None, "7"]},
    ],
    ids=str,
)
def test_what_anybody_wrote_into_the_header_does_no_harm(value: object):
    read = from_header(value)
    assert (read.tries, read.attempts, read.passes) == ((), 0, 0)


def test_the_header_is_bounded():
    tries = FailedTries()
    for number in range(100):
        fail(tries, slot("m" * 300 + str(number)), number)
    tries.bad_texts = dict.fromkeys(range(10_000), "no vector")
    assert len(orjson.dumps(to_header(tries.to_carry(20, 5)))) < 6_000
