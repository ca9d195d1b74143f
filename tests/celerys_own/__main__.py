"""``python -m tests.celerys_own [NAME]``: Celery's own tests on our pool; on its."""

import sys
from collections import Counter
from collections.abc import Sequence

from benchmarks.report import Goal, Report, main
from tests.celerys_own.expected import EXPECTED, Reason, Verdict, judge
from tests.celerys_own.plugin import OURS
from tests.celerys_own.suite import SELECTED, fetched

#: Goes before tests that are not run with all: some count on a worker being there.
STARTER = "t/integration/test_tasks.py::test_tasks::test_basic_task"
#: For the tests on Celery's threads pool, in seconds. Some leave it stuck for longer.
THREADS_SECONDS = 400


def ours() -> Report:
    """The selection on our pool, transport and result backend.

    What fails and is not on the list is run once more, alone: some of Celery's tests
    count on a fast machine. The table says how many passed only then.
    """
    with fetched() as suite:
        selected, outcomes = suite.run(OURS, SELECTED)
        first = judge(selected, outcomes, EXPECTED)
        if first.short:
            _, alone = suite.run(OURS, {"alone": [STARTER, *first.short]})
            outcomes |= alone
    verdict = judge(selected, outcomes, EXPECTED)
    late = [test for test in first.short if test in verdict.passed]
    return Report(
        ("Celery's tests", "number"),
        (
            ("selected", len(selected)),
            ("passed", len(verdict.passed)),
            ("of these only when run alone", len(late)),
            *((reason.value, len(tests)) for reason, tests in verdict.listed.items()),
            ("fail, not on the list", len(verdict.short)),
            ("not run, for the time was over", len(verdict.not_run)),
        ),
        (
            Goal("failures outside the list", len(verdict.short), 0, at_most=True),
            Goal("passes on the list", len(verdict.stale), 0, at_most=True),
            Goal("not run", len(verdict.not_run), 0, at_most=True),
        ),
        _notes(verdict, late),
    )


def _notes(verdict: Verdict, late: Sequence[str]) -> tuple[str, ...]:
    return (
        *(f"{e.test}: {e.reason.value}; {e.why}" for e in EXPECTED),
        *(f"passed only when run alone: {test}" for test in late),
        *(f"FAILS: {test}: {why}" for test, why in verdict.short.items()),
        *(f"on the list, but passed or gone: {test}" for test in verdict.stale),
    )


def threads() -> Report:
    """Those of the list that fail, on Celery's threads pool, transport and backend."""
    with fetched() as suite:
        every = ["--collect-only", *sum(SELECTED.values(), ())]
        selected, _ = suite.run(OURS, {"collected": every})
        listed = {
            entry: [test for test in selected if entry.fits(test)]
            for entry in EXPECTED
            if entry.reason is not Reason.BROKEN
        }
        # A worker for each: one that a test has stuck would stop the next.
        batches = {
            f"threads-{number}": [STARTER, *tests]
            for number, tests in enumerate(listed.values(), 1)
        }
        _, outcomes = suite.run("threads", batches, within=THREADS_SECONDS)
    found = [
        (entry.reason, test, outcomes[test].what if test in outcomes else "not run")
        for entry, tests in listed.items()
        for test in tests
    ]
    sizes = Counter(reason for reason, _, _ in found)
    passed = Counter(reason for reason, _, what in found if what == "passed")
    late = sum(what == "not run" for _, _, what in found)
    return Report(
        ("do not pass on our pool", "number", "pass on threads"),
        tuple((reason.value, n, passed[reason]) for reason, n in sizes.items()),
        (
            Goal(
                "passes of those that fail too", passed[Reason.THREADS], 0, at_most=True
            ),
            Goal("not run", late, 0, at_most=True),
        ),
        tuple(f"{test}: {what}" for _, test, what in found),
    )


CASES = {"ours": ours, "threads": threads}

if __name__ == "__main__":
    sys.exit(main("celery", CASES, sys.argv[1:]))
