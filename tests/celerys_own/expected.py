"""The tests of Celery's that do not pass, each with its reason; and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Reason(StrEnum):
    """Why a test does not pass."""

    BROKEN = "marked as broken by Celery"
    THREADS = "fail with Celery's threads pool too"
    DIFFERS = "differ on purpose"


@dataclass(frozen=True, slots=True)
class Expected:
    """One test, or those whose names a pattern fits; "?" stands for a bracket."""

    test: str
    reason: Reason
    why: str
    #: Whether it passes at times.
    by_chance: bool = False

    def fits(self, test: str) -> bool:
        """Whether a test's full name is meant."""
        return fnmatchcase(test, f"*::{self.test}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test: "passed", "failed", or "broken" if Celery says so."""

    what: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run against the list. ``short`` failed though not listed, by message."""

    passed: tuple[str, ...]
    listed: Mapping[Reason, tuple[str, ...]]
    short: Mapping[str, str]
    not_run: tuple[str, ...]
    #: Entries of the list that passed, or that no selected test fits.
    stale: tuple[str, ...]


def judge(
    selected: Sequence[str],
    outcomes: Mapping[str, Outcome],
    expected: Sequence[Expected],
) -> Verdict:
    """Sort the selected tests by what became of them, and by what was expected."""
    passed: list[str] = []
    listed: dict[Reason, list[str]] = {reason: [] for reason in Reason}
    short: dict[str, str] = {}
    stale = [e.test for e in expected if not any(e.fits(test) for test in selected)]
    for test in selected:
        entry = next((e for e in expected if e.fits(test)), None)
        outcome = outcomes.get(test)
        if outcome is None:
            continue
        if outcome.what == "passed":
            passed.append(test)
            if entry and not entry.by_chance:
                stale.append(test)
        elif entry and (outcome.what == "broken") == (entry.reason is Reason.BROKEN):
            listed[entry.reason].append(test)
        else:
            short[test] = f"{outcome.what}: {outcome.message}"
    return Verdict(
        tuple(passed),
        {reason: tuple(tests) for reason, tests in listed.items()},
        short,
        tuple(test for test in selected if test not in outcomes),
        tuple(stale),
    )


EXPECTED = (
    Expected(
        "test_tasks::test_multiprocess_producer", Reason.BROKEN, "skipped: broken test"
    ),
    Expected(
        "test_tasks::test_multithread_producer", Reason.BROKEN, "skipped: broken test"
    ),
    Expected(
        "test_tasks::test_task_accepted", Reason.BROKEN, "skipped: randomly fails"
    ),
    Expected(
        "test_chain::test_chord_header_id_duplicated_on_rabbitmq_msg_duplication*",
        Reason.BROKEN,
        "xfail: not with a Redis broker",
    ),
    Expected(
        "test_chord::test_redis_subscribed_channels_leak",
        Reason.BROKEN,
        "xfail: asynchronous results",
    ),
    Expected(
        "test_chord::test_error_propagates_from_chord",
        Reason.BROKEN,
        "xfail: known to Celery",
    ),
    Expected(
        "test_class_based_tasks::test_class_based_task_retried",
        Reason.THREADS,
        "the task is known to one application and looked up in another",
    ),
    Expected(
        "test_tasks::test_expired",
        Reason.THREADS,
        "needs a pool that holds back the fifth task",
    ),
    Expected(
        "test_Inspect::test_stats",
        Reason.THREADS,
        "asks for the processes of a prefork pool",
    ),
    Expected(
        "test_Inspect::test_active",
        Reason.DIFFERS,
        '"acknowledged" is false while a task runs: its answer is stored first',
    ),
    Expected(
        "test_Inspect::test_query_task",
        Reason.DIFFERS,
        '"acknowledged" is false while a task runs, as above',
    ),
    Expected(
        "test_Inspect::test_scheduled",
        Reason.DIFFERS,
        "what is not due is in Redis, where it outlives the worker",
    ),
    Expected(
        "test_tasks::test_revoked",
        Reason.DIFFERS,
        "counts on --concurrency 1, here only a label, to revoke the fifth in time",
        by_chance=True,
    ),
    Expected(
        "test_task_replacement::test_replaced_task_nesting_level_0",
        Reason.DIFFERS,
        "counts on a task being received later than the line after `delay` is run",
        by_chance=True,
    ),
    Expected(
        "test_task_redis_result_backend::test_asyncresult_*_cancels_subscription",
        Reason.DIFFERS,
        "a result is subscribed to while somebody waits for it, not as it is sent",
    ),
    Expected(
        "test_pubsub_*",
        Reason.DIFFERS,
        "they drive Celery's consumer of results by hand, which ours does without",
    ),
    Expected(
        "test_decode_responses_disables_compression",
        Reason.DIFFERS,
        "a URL has only parameters that mean the same to every library",
    ),
    Expected(
        "test_trace_log_arguments::*",
        Reason.DIFFERS,
        "lines for each request, with its answer, are not logged",
    ),
)
