"""A launcher that is killed under load, again and again."""

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from celery.result import AsyncResult

from benchmarks.report import Goal, Report
from modelserver.api import client
from modelserver.settings import load
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_host
from modelserver.store.fleet.workers import read_loads, read_workers
from modelserver.values import EngineReport, EngineSpec, EngineState, Wish
from tests.engine.openai_api import answer_text
from tests.support.launchers import HOST, Site, open_site, section
from tests.support.processes import ValkeyProcess, end, eventually
from tests.support.workers import WorkerProcess

#: Kills, unless KILLS in the environment says otherwise; at most MOST_KILLS.
KILLS = 10
MOST_KILLS = 50
#: Requests that are sent before each kill: five seconds of work for both engines.
REQUESTS = 300
MODEL = "busy"
ENGINES = ("busy-0", "busy-1")
#: How long engines and answers are waited for, in seconds.
PATIENCE = 60.0


def kills() -> int:
    """How many kills each run makes."""
    return max(1, min(MOST_KILLS, int(os.environ.get("KILLS", KILLS))))


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: seconds until every engine was proved again, and how many adopted."""

    seconds: float
    adopted: int


def launcher_killed() -> Report:
    """SIGKILL of the launcher while its two engines serve: they go on, and are adopted.

    Test engines with 1-second requests, a real worker, and a new launcher right after
    each kill. The time counts from the kill until both engines have given a token to
    the new launcher. KILLS in the environment sets the number.
    """
    with tempfile.TemporaryDirectory(prefix="modelserver-chaos-") as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        valkey = ValkeyProcess(folder / "valkey").start()
        busy = section(MODEL, "--latency", "1.0", max_running=32)
        try:
            with open_site(folder, valkey, busy) as site:
                return _run(site)
        finally:
            valkey.stop()


def _run(site: Site) -> Report:
    site.launch()
    for engine in ENGINES:
        site.wish(engine, Wish(EngineSpec(engine, MODEL, HOST)))
    for engine in ENGINES:
        site.reaches(engine, EngineState.READY, within=PATIENCE)
    worker = WorkerProcess(site.folder / "worker.log", site.environment, "w@chaos")
    app = client(load(site.environment))
    sent: dict[str, AsyncResult] = {}
    try:
        eventually(lambda: read_workers(site.store), PATIENCE)
        done = [_kill(site, app, sent) for _ in range(kills())]
        outcomes = _outcomes(sent)
    finally:
        end(worker.process)
        app.backend.result_consumer.stop()
        app.close()
    return _report(done, outcomes, len(sent))


def _kill(site: Site, app: Celery, sent: dict[str, AsyncResult]) -> Kill:
    complete = app.modelserver_tasks[0]
    for _ in range(REQUESTS):
        prompt = f"busy {len(sent)}"
        values = {"model": MODEL, "max_tokens": 16}
        sent[prompt] = complete.apply_async((prompt,), values)
    eventually(lambda: all(_inflight(site, each) for each in ENGINES), PATIENCE)
    before = read_engines(site.store)
    old = site.launchers[-1]
    old.signal(signal.SIGKILL)
    began, killed_at = time.monotonic(), site.store.now()
    old.wait()
    site.launch()

    def proved() -> bool:
        now = read_engines(site.store)
        host = read_host(site.store, HOST)
        return bool(host and host.pid != old.process.pid) and all(
            now[each].serves and now[each].alive_at > killed_at for each in ENGINES
        )

    eventually(proved, PATIENCE)
    seconds = time.monotonic() - began
    after = read_engines(site.store)
    return Kill(seconds, sum(_same(before[each], after[each]) for each in ENGINES))


def _inflight(site: Site, engine: str) -> int:
    load = read_loads(site.store).get(engine)
    return load.inflight if load else 0


def _same(before: EngineReport, after: EngineReport) -> bool:
    return (before.pid, before.incarnation) == (after.pid, after.incarnation)


def _outcomes(sent: Mapping[str, AsyncResult]) -> Counter[str]:
    """How the requests ended: "right", "wrong", or the error's name."""
    counted: Counter[str] = Counter()
    for prompt, result in sent.items():
        try:
            right = result.get(timeout=PATIENCE) == answer_text(prompt)
            counted["right" if right else "wrong"] += 1
        except Exception as error:
            # Whatever it is, it is a request that failed.
            counted[type(error).__name__] += 1
    return counted


def _report(done: list[Kill], outcomes: Counter[str], sent: int) -> Report:
    seconds = sorted(kill.seconds for kill in done)
    adopted = min(kill.adopted for kill in done)
    columns = ("kills", "sent", "right", "adopted", "p50 s", "max s")
    middle = seconds[len(seconds) // 2]
    row = (len(done), sent, outcomes["right"], adopted, middle, seconds[-1])
    failed = sent - outcomes["right"]
    notes = [f"{count} requests: {name}" for name, count in outcomes.items()]
    return Report(
        columns,
        (row,),
        (
            Goal("requests failed", failed, 0, at_most=True),
            Goal("engines adopted", adopted, len(ENGINES)),
            Goal("adopted and proved", seconds[-1], 15, "s", at_most=True),
        ),
        tuple(notes),
    )
