"""What is made of a run of Celery's own tests."""

from tests.celerys_own.expected import Expected, Outcome, Reason, judge

LIST = (
    Expected("test_a::test_skipped", Reason.BROKEN, "skipped by Celery"),
    Expected("test_a::test_old?*-1?", Reason.THREADS, "fails there as well"),
    Expected("test_a::test_other", Reason.DIFFERS, "differs"),
)
PASSED, FAILED, BROKEN = Outcome("passed"), Outcome("failed", "why"), Outcome("broken")


def name(test: str) -> str:
    return f"t/integration/test_a.py::test_a::{test}"


EXPECTED = {
    name("test_skipped"): BROKEN,
    name("test_old[True-1]"): FAILED,
    name("test_old[True-2]"): PASSED,
    name("test_other"): FAILED,
}


def test_a_run_that_goes_as_expected():
    verdict = judge(list(EXPECTED), EXPECTED, LIST)
    assert verdict.passed == (name("test_old[True-2]"),)
    assert verdict.listed[Reason.THREADS] == (name("test_old[True-1]"),)
    assert verdict.listed[Reason.DIFFERS] == (name("test_other"),)
    assert (verdict.short, verdict.not_run, verdict.stale) == ({}, (), ())


def test_a_failure_that_is_not_listed_is_short():
    test = name("test_old[True-2]")
    verdict = judge(list(EXPECTED), EXPECTED | {test: FAILED}, LIST)
    assert verdict.short == {test: "failed: why"}


def test_a_skip_counts_only_where_one_is_expected():
    outcomes = {name("test_other"): BROKEN, name("test_skipped"): FAILED}
    verdict = judge(list(EXPECTED), EXPECTED | outcomes, LIST)
    assert verdict.short.keys() == outcomes.keys()


def test_a_listed_test_that_passes_is_stale_and_so_is_one_that_is_gone():
    test = name("test_old[True-1]")
    selected = [name("test_skipped"), test]
    outcomes = {selected[0]: BROKEN, test: PASSED}
    assert judge(selected, outcomes, LIST).stale == ("test_a::test_other", test)


def test_a_test_that_passes_by_chance_is_not_stale():
    entry = Expected("test_a::test_other", Reason.DIFFERS, "a race", by_chance=True)
    test = name("test_other")
    for outcome in (PASSED, FAILED):
        verdict = judge([test], {test: outcome}, [entry])
        assert (verdict.short, verdict.stale) == ({}, ())


def test_what_did_not_run_is_told():
    verdict = judge(list(EXPECTED), {}, LIST)
    assert verdict.not_run == tuple(EXPECTED)
    assert (verdict.passed, verdict.short) == ((), {})
