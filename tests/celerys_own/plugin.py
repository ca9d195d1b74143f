"""What pytest loads beside Celery's tests: the pool that they get, and a record."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.celerys_own.expected import Outcome

#: The pool of this project, for --worker-pool. With any other the tests get Celery's
#: own application, transport and result backend.
OURS = "workers.pool:AsyncPool"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the runner."""
    parser.addoption("--worker-pool", required=True)
    parser.addoption("--record", type=Path, required=True)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put our application in the place of Celery's."""
    if config.getoption("--worker-pool") != OURS:
        return
    from modelserver.messaging import wire

    # Before anything else imports the name.
    wire.CONTROL_QUEUE = "celery"
    from celery.contrib.testing import app as testing

    from tests.celerys_own.application import App

    testing.Celery = App


def pytest_fixture_setup(
    fixturedef: Any, request: pytest.FixtureRequest
) -> object | None:
    """Celery's conftest names prefork: the fixture gives the chosen pool instead."""
    if fixturedef.argname == "celery_worker_pool":
        pool = request.config.getoption("--worker-pool")
        fixturedef.func = lambda: pool
    return None


@pytest.fixture(scope="session", autouse=True)
def tasks_that_sleep_on_the_loop(pytestconfig: pytest.Config) -> None:
    """Let the tests' tasks wait as a task on the loop does."""
    if pytestconfig.getoption("--worker-pool") == OURS:
        from t.integration import tasks

        from tests.celerys_own.application import sleep

        tasks.sleep = sleep


def pytest_collection_finish(session: pytest.Session) -> None:
    """Record what is to be run."""
    for item in session.items:
        _record(session.config, {"test": item.nodeid})


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """Record each phase that says something about the test."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.when != "call" and report.passed:
        return
    _record(
        item.config,
        {
            "test": item.nodeid,
            "outcome": _outcome(report),
            "message": _message(report),
        },
    )


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "passed" if report.passed else "broken"
    return "broken" if report.skipped else report.outcome


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[-1])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", "") or report.longreprtext)[:300]


def _record(config: pytest.Config, line: dict[str, Any]) -> None:
    with config.getoption("--record").open("a") as record:
        record.write(json.dumps(line) + "\n")


def read(record: Path) -> tuple[Sequence[str], dict[str, Outcome]]:
    """The tests that were selected; and the outcomes of those that ran.

    A test that failed in any phase has failed.
    """
    selected: list[str] = []
    outcomes: dict[str, Outcome] = {}
    for text in record.read_text().splitlines():
        line = json.loads(text)
        test = line["test"]
        if "outcome" not in line:
            selected.append(test)
        elif test not in outcomes or line["outcome"] == "failed":
            outcomes[test] = Outcome(line["outcome"], line["message"])
    return selected, outcomes
