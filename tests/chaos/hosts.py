"""Hosts under steady load: each request is accounted for, and so is each engine."""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from celery.result import AsyncResult

from benchmarks.report import Goal, Report
from modelserver.values import EngineReport
from tests.engine.openai_api import answer_text
from tests.support.fleets import Hosts, open_hosts
from tests.support.processes import ValkeyProcess

#: Requests that are sent each second.
REQUESTS_PER_SECOND = 10.0
#: How long engines and answers are waited for, in seconds.
PATIENCE = 90.0
COLUMNS = ("fault", "sent", "right", "failed", "engine")


@contextmanager
def hosts_of(*models: str) -> Iterator[tuple[Hosts, ValkeyProcess]]:
    """A fleet of these models with a server of its own; no launcher runs yet."""
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-") as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        valkey = ValkeyProcess(folder / "valkey").start()
        try:
            with open_hosts(folder, valkey.url, *models) as hosts:
                yield hosts, valkey
        finally:
            valkey.stop()


class Traffic:
    """Requests to ``m``, ten a second, from when it is entered until it is left."""

    def __init__(self, hosts: Hosts) -> None:
        self._complete = hosts.complete
        #: Requests so far.
        self.sent = 0
        self._results: dict[str, AsyncResult] = {}
        #: By the name of the error: requests that could not be sent.
        self._refused: Counter[str] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._over.wait(1 / REQUESTS_PER_SECOND):
            prompt = f"m {self.sent}"
            self.sent += 1
            values = {"model": "m", "max_tokens": 16}
            try:
                self._results[prompt] = self._complete.apply_async((prompt,), values)
            except Exception as error:
                # Whatever it is, it is a request that failed.
                self._refused[type(error).__name__] += 1

    def outcomes(self) -> Counter[str]:
        """How all of them ended: "right", "wrong", or the error's name."""
        counted = Counter(self._refused)
        until = time.monotonic() + PATIENCE
        for prompt, result in self._results.items():
            try:
                left = max(0.1, until - time.monotonic())
                right = result.get(timeout=left) == answer_text(prompt)
                counted["right" if right else "wrong"] += 1
            except Exception as error:
                # Whatever it is, it is a request that failed.
                counted[type(error).__name__] += 1
        return counted


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault, and what became of the requests and of the engine."""

    fault: str
    sent: int
    right: int
    #: What became of the engine, for people: "the same", or what happened.
    engine: str


def account(
    fault: str, traffic: Traffic, before: EngineReport, after: EngineReport | None
) -> Struck:
    """What a fault did to an engine that should not notice it."""
    outcomes = traffic.outcomes()
    return Struck(fault, traffic.sent, outcomes["right"], what_became(before, after))


def what_became(before: EngineReport, after: EngineReport | None) -> str:
    """What became of an engine, for people: "the same", or what happened."""
    if after is None:
        return "gone"
    if (before.host, before.pid, before.incarnation) == (
        after.host,
        after.pid,
        after.incarnation,
    ):
        return "the same" if after.serves else f"{after.state}: {after.reason}"
    return f"incarnation {after.incarnation} on {after.host} for {before.incarnation}"


def report(struck: Sequence[Struck], *goals: Goal, notes: Sequence[str] = ()) -> Report:
    """The table of some faults that no engine and no request should notice."""
    rows = [(s.fault, s.sent, s.right, s.sent - s.right, s.engine) for s in struck]
    lost = sum(each.sent - each.right for each in struck)
    same = sum(each.engine == "the same" for each in struck)
    return Report(
        COLUMNS,
        tuple(rows),
        (
            Goal("requests failed", lost, 0, at_most=True),
            Goal("engines untouched", same, len(struck)),
            *goals,
        ),
        tuple(notes),
    )
