"""What the decision log keeps of an action."""

from dataclasses import replace

import pytest

from modelserver.measured import Canary
from modelserver.policy.actions import Alert, Drop, Relaunch, Treat, Want
from modelserver.policy.decide import Decision
from modelserver.policy.decision_log import account, noteworthy
from modelserver.policy.health.memory import Health, HealthMemory
from modelserver.policy.health.verdicts import FailingTogether, SlowCanary, SlowTogether
from modelserver.values import Cause, EngineSpec
from tests.support.control import NOW, RULES, Scene

NOTHING = Decision()


def of(action, scene: Scene | None = None, decision: Decision = NOTHING):
    snapshot = (scene or Scene(2)).snapshot()
    return account(action, snapshot, decision, RULES, NOW)


def test_what_only_moves_a_limit_is_not_kept():
    moved, held = Treat("m-0", 1, limit=3), Treat("m-0", 1, hold="slow", reason="slow")
    assert noteworthy([moved, held, Drop("m-1", "gone")]) == [
        held,
        Drop("m-1", "gone"),
    ]


def test_a_place_is_kept_with_where_the_engine_was():
    kept = of(Want(EngineSpec("m-0", "m", "b")))
    assert (kept["action"], kept["host"], kept["was_on"]) == ("want", "b", "a")
    assert of(Want(EngineSpec("m-9", "m", "b")))["was_on"] == ""


def test_the_end_of_an_engine_is_kept_with_the_hosts_that_live():
    kept = of(Drop("m-0", "not wanted any more"))
    assert (kept["reason"], kept["live_hosts"]) == ("not wanted any more", "a")


def test_a_relaunch_is_kept_with_what_was_seen_of_the_engine():
    kept = of(Relaunch("m-0", 1, "hung", Cause.HUNG))
    assert (kept["reason"], kept["incarnation"]) == ("hung", "1")
    assert (kept["inflight"], kept["oldest_seconds"], kept["hang_seconds"]) == (
        "2",
        "1.0",
        "60",
    )


def test_an_engine_without_requests_or_a_report_has_fewer_symptoms():
    scene = Scene(2)
    del scene.loads["m-0"]
    assert "inflight" not in of(Relaunch("m-0", 1, "hung", Cause.HUNG), scene)
    del scene.engines["m-0"]
    assert "alive_at" not in of(Relaunch("m-0", 1, "hung", Cause.HUNG), scene)


def test_a_verdict_is_kept_with_its_figures_and_what_followed():
    scene = Scene(4)
    scene.slow("m-0")
    before = scene.snapshot()
    decision = scene.look()
    kept = account(Treat("m-0", 1), before, decision, RULES, scene.now)
    assert kept["verdict"].startswith("slow: takes 3.00x")
    assert float(kept["residual"]) > 1
    assert kept["peers"] == "3"
    assert kept["health"] == "healthy -> suspect"
    assert kept["because"].startswith("slow: takes 3.00x")


def test_an_engine_that_was_not_known_before_has_no_health_before():
    scene = Scene(1)
    after = scene.look()
    scene.memory = HealthMemory()
    kept = of(Treat("m-0", 1, limit=4), scene, after)
    assert kept["health"] == "unknown -> healthy"
    assert kept["limit"] == "4"


def test_where_nothing_is_judged_no_health_is_kept():
    scene = Scene(1)
    after = scene.look()
    snapshot = replace(scene.snapshot(), memory=None)
    kept = account(Treat("m-0", 1), snapshot, after, RULES, NOW)
    assert "health" not in kept


def test_an_alert_about_a_model_is_kept_with_the_models_verdict():
    decision = Decision(verdicts=(SlowTogether("m", 0.7, 4), SlowTogether("n", 0.9, 2)))
    kept = of(Alert("m", "all slow"), decision=decision)
    assert (kept["reason"], kept["residual"], kept["engines"]) == (
        "all slow",
        "0.7",
        "4",
    )


@pytest.mark.parametrize(
    ("at_fault", "failed", "text"),
    [
        (15, 5, "15 % of the requests of m are at fault themselves, so no engine is"),
        (1, 20, "20 % of the requests of m fail, on no engine more than on others"),
    ],
)
def test_an_alert_of_failing_requests_is_kept_with_its_figures(at_fault, failed, text):
    verdict = FailingTogether("m", at_fault, failed, 105)
    kept = of(Alert("m", verdict.text), decision=Decision(verdicts=(verdict,)))
    assert kept["verdict"].startswith(text)
    assert (kept["at_fault"], kept["requests"]) == (str(at_fault), "105")


def test_canaries_are_kept_one_by_one():
    verdict = SlowCanary("m-0", 1, (0.51, 0.5, 0.25), 0.25)
    scene = Scene(1, health=Health.SUSPECT, slowdown=2.0)
    scene.canaries["m-0"] = (Canary("m-0", 1, NOW, 0.5),)
    decision = Decision(memory=scene.memory, verdicts=(verdict,))
    kept = of(Treat("m-0", 1), scene, decision)
    assert kept["seconds"] == "0.510, 0.500, 0.250"
    assert kept["slowdown"] == "2.00"
