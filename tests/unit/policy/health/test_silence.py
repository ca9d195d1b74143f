"""Whether an engine hangs."""

from dataclasses import replace

from modelserver.measured import EngineLoad, Metrics
from modelserver.policy.health.silence import find_hang
from modelserver.values import EngineReport, EngineState
from tests.support.control import FIT, NOW, sample, samples

ENGINE = EngineReport("m-0", "m", "a", EngineState.READY, 1)


def hang(load, metrics=None, made=(), fit=FIT):
    return find_hang(ENGINE, load, metrics, made, fit, NOW)


def test_an_engine_without_requests_does_not_hang():
    assert hang(None) is None
    assert hang(EngineLoad(0, 0.0, 999.0)) is None


def test_with_a_token_counter_half_a_minute_is_enough():
    verdict = hang(EngineLoad(3, 80.0, 80.0), Metrics(tokens_at=NOW - 31))
    assert verdict
    assert verdict.text == (
        "hung: no token for 31 s with 3 in flight; 30 s can be explained"
    )
    assert hang(EngineLoad(3, 80.0, 80.0), Metrics(tokens_at=NOW - 30)) is None


def test_answers_that_come_are_tokens_whatever_the_counter_says():
    assert hang(EngineLoad(3, 80.0, 1.0), Metrics(tokens_at=NOW - 300)) is None


def test_a_long_prefill_explains_silence():
    fit = type(FIT)((0.0, 0.1, 0.01, 0.0, 0.1), 0.05, 1000)
    metrics = Metrics(tokens_at=NOW - 50)
    # A hundred prompt tokens at 0.2 s each are 20 s, and thrice that is allowed.
    assert hang(EngineLoad(3, 80.0, 80.0), metrics, samples(), fit) is None
    assert hang(EngineLoad(3, 80.0, 80.0), metrics, samples(), None)


def test_silence_from_before_its_oldest_request_does_not_count():
    assert hang(EngineLoad(1, 5.0, 500.0), Metrics(tokens_at=NOW - 500)) is None
    assert hang(EngineLoad(1, 5.0, 500.0)) is None


def test_without_a_counter_a_minute_without_an_answer():
    verdict = hang(EngineLoad(3, 80.0, 61.0), None, samples())
    assert verdict
    assert verdict.sign == "answer"
    assert hang(EngineLoad(3, 80.0, 60.0), None, samples()) is None
    assert hang(EngineLoad(3, 80.0, 61.0), Metrics(), ())


def test_without_a_counter_an_engine_that_gives_a_token_when_asked_does_not_hang():
    """All that it has may run until their deadlines."""
    asked = replace(ENGINE, alive_at=NOW - 10)
    endless = EngineLoad(32, 300.0, 300.0)
    assert find_hang(asked, endless, None, samples(), FIT, NOW) is None
    silent = replace(ENGINE, alive_at=NOW - 70)
    assert find_hang(silent, endless, None, samples(), FIT, NOW)


def test_long_requests_explain_long_silence():
    long = [sample(age=30.0 * place, seconds=100.0) for place in range(20)]
    assert hang(EngineLoad(3, 300.0, 199.0), None, long) is None
    assert hang(EngineLoad(3, 2000.0, 1999.0), None, long)


def test_an_engine_that_was_empty_for_long_is_not_waited_for_as_long():
    rare = [sample(age=1000.0 * place, seconds=2.0) for place in range(10)]
    assert hang(EngineLoad(1, 70.0, 70.0), None, rare)
