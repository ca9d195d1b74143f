"""When a canary is sent, and when it counts."""

from dataclasses import replace

from launcher.engine.canaries import (
    ASKED_EMPTY_SECONDS,
    FAILED_PAUSE_SECONDS,
    LONG_AGO,
    ROUND,
    UNASKED_EMPTY_SECONDS,
    UNASKED_EVERY_SECONDS,
    WORKER_REPORT_AGE_SECONDS,
    CanaryPlan,
    DueCanaries,
    EngineUse,
    SentCanary,
)
from modelserver.measured import EngineLoad
from modelserver.values import EngineSpec, Wish

WISH = Wish(EngineSpec("m-0", "m", "here"))
EMPTY = EngineUse(inflight=0, answered_at=LONG_AGO, read_at=100.0)
FULL = replace(EMPTY, inflight=3)
TAKEN = (SentCanary(100.0, 101.0, 1.0, False), SentCanary(101.0, 103.0, 2.0, True))


def measured(done: int = 0) -> CanaryPlan:
    return CanaryPlan(done, measured=True, now=0.0)


def at(
    plan: CanaryPlan, now: float, sight: EngineUse = EMPTY, canary: int = 0
) -> DueCanaries | None:
    return plan.find_due(now, sight, replace(WISH, canary=canary))


def test_an_engine_without_a_baseline_gets_a_round_once_it_is_empty():
    plan = CanaryPlan(0, measured=False, now=0.0)
    assert at(plan, 0.0, FULL) is None
    assert at(plan, 1.0) is None
    assert at(plan, 1.0 + UNASKED_EMPTY_SECONDS) == DueCanaries(ROUND)
    plan.passed(DueCanaries(ROUND), 10.0)
    assert at(plan, 11.0) is None
    assert plan.done == 0


def test_an_empty_engine_gets_one_now_and_then():
    plan = measured()
    assert at(plan, 1.0) is None
    assert at(plan, UNASKED_EVERY_SECONDS) == DueCanaries((False,))
    plan.passed(DueCanaries((False,)), UNASKED_EVERY_SECONDS + 1)
    assert at(plan, UNASKED_EVERY_SECONDS + 2) is None
    assert at(plan, 2 * UNASKED_EVERY_SECONDS + 1) == DueCanaries((False,))


def test_a_round_that_control_asks_for_comes_as_soon_as_the_engine_is_empty():
    plan = measured()
    assert at(plan, 1.0, FULL, canary=4) is None
    assert at(plan, 2.0, EMPTY, canary=4) is None
    assert at(plan, 2.0 + ASKED_EMPTY_SECONDS, EMPTY, canary=4) == DueCanaries(ROUND, 4)
    plan.passed(DueCanaries(ROUND, 4), 5.0)
    assert plan.done == 4
    assert at(plan, 10.0, EMPTY, canary=4) is None
    assert at(plan, 10.0, EMPTY, canary=5) == DueCanaries(ROUND, 5)


def test_a_round_that_was_done_is_not_done_again_by_the_next_launcher():
    plan = measured(done=4)
    at(plan, 0.0, EMPTY, canary=4)
    assert at(plan, 20.0, EMPTY, canary=4) is None


def test_requests_between_two_looks_keep_an_engine_from_being_empty():
    plan = measured()
    at(plan, 0.0, EMPTY, canary=1)
    just_answered = replace(EMPTY, answered_at=9.0)
    assert at(plan, 10.0, just_answered, canary=1) is None
    assert at(plan, 9.0 + ASKED_EMPTY_SECONDS, just_answered, canary=1)


def test_an_engine_that_says_it_is_busy_is_not_empty():
    plan = measured()
    busy = replace(EMPTY, busy_at=19.0)
    at(plan, 0.0, busy, canary=1)
    assert at(plan, 20.0, busy, canary=1) is None


def test_after_a_failed_round_comes_a_pause():
    plan = measured()
    at(plan, 0.0, EMPTY, canary=1)
    plan.failed(5.0)
    assert at(plan, 5.1, EMPTY, canary=1) is None
    assert at(plan, 5.0 + FAILED_PAUSE_SECONDS, EMPTY, canary=1) == DueCanaries(
        ROUND, 1
    )


def test_canaries_count_once_reports_show_that_nothing_ran_beside_them():
    early = replace(EMPTY, read_at=103.0 + WORKER_REPORT_AGE_SECONDS / 2)
    late = replace(EMPTY, read_at=103.1 + WORKER_REPORT_AGE_SECONDS)
    assert early.confirms(TAKEN) is None
    assert late.confirms(TAKEN) is True


def test_canaries_with_a_request_beside_them_do_not_count():
    late = replace(EMPTY, read_at=110.0)
    assert replace(late, inflight=1).confirms(TAKEN) is False
    assert replace(late, busy_at=104.0).confirms(TAKEN) is False
    assert replace(late, answered_at=101.5).confirms(TAKEN) is False
    assert replace(late, answered_at=99.0).confirms(TAKEN) is True


def test_what_an_engine_said_of_its_canaries_is_not_held_against_them():
    late = replace(EMPTY, read_at=110.0)
    assert replace(late, busy_at=102.5).confirms(TAKEN) is True


def test_what_is_on_an_engine_comes_from_the_workers():
    load = EngineLoad(inflight=2, oldest_seconds=3.0, idle_seconds=4.0)
    assert EngineUse.of(load, 100.0, LONG_AGO) == EngineUse(2, 96.0, 100.0)
    assert EngineUse.of(None, 100.0, LONG_AGO).empty
