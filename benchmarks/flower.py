"""Flower's memory."""

import base64
import sys
import urllib.request

import orjson
import psutil
import redis

from benchmarks.machine import START_SECONDS, Processes
from benchmarks.queue_depth import _copies, _push, _template
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.store.fleet.workers import read_answers
from tests.support.processes import eventually, free_port

IN_FLIGHT = 256
ENGINE_SECONDS = 0.05
TASKS = 20_000
#: How many tasks it keeps: `max_tasks` of flowerconfig.py.
KEPT = 10_000
USER, PASSWORD = "bench", "a-password-of-a-bench"
#: Task events of all tasks.
ALL_EVENTS = "1000000"


def flower() -> Report:
    """Flower's resident memory before and after 20,000 tasks, with all their events.

    It keeps the last 10,000 tasks (``max_tasks``); by default it is told of 100 tasks a
    second.
    """
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        port = free_port()
        argv = [sys.executable, "-m", "modelserver.cli", "flower", f"--port={port}"]
        program = rig.program(
            argv,
            "flower",
            FLOWER_BASIC_AUTH=f"{USER}:{PASSWORD}",
        )
        eventually(lambda: _ask(port, "workers") is not None, START_SECONDS)
        before = _megabytes(program)
        client = redis.Redis.from_url(rig.server.url)
        rig.keep(client.close)
        messages = _copies(_template(rig, client))
        _push(client, rig.store.keys.queue(CHAT_MODEL)[0], messages, TASKS)
        rig.worker(wait=False, MODELSERVER_RULES_EVENTS_PER_SECOND=ALL_EVENTS)
        eventually(lambda: read_answers(rig.store).get("stored", 0) >= TASKS, 300)
        kept = eventually(lambda: _kept(port) == KEPT and KEPT, 120)
        after = _megabytes(program)
    return Report(
        ("tasks", "kept", "MB before", "MB after"),
        ((TASKS, kept, before, after),),
        (Goal("flower MB after 20,000 tasks", after, 250, at_most=True),),
        (),
    )


def _ask(port: int, what: str) -> object:
    """What Flower's API says, None while it does not answer."""
    told = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    url = f"http://127.0.0.1:{port}/api/{what}"
    asked = urllib.request.Request(url, headers={"Authorization": f"Basic {told}"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return orjson.loads(answer.read())
    except OSError:
        return None


def _kept(port: int) -> int:
    tasks = _ask(port, f"tasks?limit={TASKS}")
    return len(tasks) if isinstance(tasks, dict) else 0


def _megabytes(program: Processes) -> float:
    head = psutil.Process(program.pid)
    family = [head, *head.children(recursive=True)]
    return max(each.memory_info().rss for each in family) / 1e6
