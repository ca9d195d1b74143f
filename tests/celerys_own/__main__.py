"""``python -m tests.celerys_own [NAME]``: Celery's own tests on our pool; on its."""

import sys
from collections import Counter
from collections.abc import Sequence

from benchmarks.report import Goal, Report, main
from tests.celerys_own.expected import EXPECTED, Reason, Verdict, judge
from tests.celerys_own.plugin import OURS
from tests.celerys_own.suite import SELECTED, fetched


def ours() -> Report:
    """The selection on our pool, transport and result backend.

    What fails and is not on the list is run once more, alone: some of Celery's tests
    count on a fast machine. The table says how many passed only then.
    """
    with fetched() as suite:
        selected, outcomes = suite.run(OURS, SELECTED)
        first = judge(selected, outcomes, EXPECTED)
        if first.short:
            _, alone = suite.run(OURS, {"alone": list(first.short)})
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
        selected, _ = suite.run(
            OURS, {"collected": ["--collect-only", *sum(SELECTED.values(), ())]}
        )
        entries = {
            test: entry
            for test in selected
            for entry in EXPECTED
            if entry.fits(test) and entry.reason is not Reason.BROKEN
        }
        _, outcomes = suite.run("threads", {"threads": list(entries)})
    passed: Counter[Reason] = Counter(
        entry.reason
        for test, entry in entries.items()
        if test in outcomes and outcomes[test].what == "passed"
    )
    sizes = Counter(entry.reason for entry in entries.values())
    return Report(
        ("do not pass on our pool", "number", "pass on threads"),
        tuple((reason.value, n, passed[reason]) for reason, n in sizes.items()),
        (
            Goal(
                "passes of those said to fail with threads",
                passed[Reason.THREADS],
                0,
                at_most=True,
            ),
            Goal("not run", len(entries) - len(outcomes), 0, at_most=True),
        ),
        tuple(f"{test}: {outcome.what}" for test, outcome in outcomes.items()),
    )


CASES = {"ours": ours, "threads": threads}

if __name__ == "__main__":
    sys.exit(main("celery", CASES, sys.argv[1:]))
