"""What task events cost a worker."""

import statistics
from collections import defaultdict

import redis

from benchmarks.machine import Elsewhere
from benchmarks.queue_depth import _copies, _push, _template
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from benchmarks.steady import Steady, steady
from modelserver import settings as settings_module
from modelserver.store.fleet.workers import read_answers

#: Tasks a second that are followed with all their events: none, the default, all.
RATES = {"none": 0.0, "100 a second": 100.0, "all": 1e9}
IN_FLIGHT = 512
ENGINE_SECONDS = 0.2
TASKS = 8_000
WINDOW_SECONDS = 3.0
ROUNDS = 3


def events() -> Report:
    """Worker's CPU time per task with task events for none, 100 a second, and all.

    512 in flight on an engine of 200 ms, a queue that is filled first, a worker of its
    own for each run. All take turns.
    """
    runs: dict[str, list[Steady]] = defaultdict(list)
    elsewhere = Elsewhere()
    for _ in range(ROUNDS):
        for name, rate in RATES.items():
            runs[name].append(_run(rate))
    cpu = {
        name: statistics.median(run.cpu_ms for run in figures)
        for name, figures in runs.items()
    }
    none, some, every = (cpu[name] for name in RATES)
    return Report(
        ("tasks with events", "CPU ms/task", "least", "most", "tasks/s"),
        tuple(
            (
                name,
                cpu[name],
                min(run.cpu_ms for run in figures),
                max(run.cpu_ms for run in figures),
                statistics.median(run.rate for run in figures),
            )
            for name, figures in runs.items()
        ),
        (Goal("events default over none", some / none, 1.15, at_most=True),),
        (
            f"events of all tasks cost {every - none:.2f} ms a task",
            f"others used {elsewhere.cores():.1f} cores meanwhile",
        ),
    )


def _run(rate: float) -> Steady:
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        path = rig.folder / "fleet-events.toml"
        # The file ends with the rules.
        rule = f"events_per_second = {rate}\n"
        path.write_text(rig.settings.fleet_file.read_text() + rule)
        client = redis.Redis.from_url(rig.server.url)
        rig.keep(client.close)
        messages = _copies(_template(rig, client))
        _push(client, rig.store.keys.queue(CHAT_MODEL)[0], messages, TASKS)
        worker = rig.worker(settings_module.load(rig.environment(path)), wait=False)
        return steady(
            worker,
            rig.server,
            lambda: read_answers(rig.store).get("stored", 0),
            2 * IN_FLIGHT,
            TASKS - IN_FLIGHT,
            WINDOW_SECONDS,
        )
