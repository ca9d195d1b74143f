"""Whether a worker's memory grows: a million tasks through one worker."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import redis

from benchmarks.machine import Processes
from benchmarks.queue_depth import _copies, _push
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver import settings as settings_module
from modelserver.api import client as client_of
from modelserver.settings import Settings
from modelserver.store.fleet.workers import read_answers, read_backlog

TASKS = int(os.environ.get("SOAK_TASKS", "1000000"))
IN_FLIGHT = 512
ENGINE_SECONDS = 0.02
#: The most tasks in the queue; it is filled up when half of them are left.
PORTION = 20_000
#: How often the run is looked at, in seconds.
SOAK_LOOK_SECONDS = 2.0
#: The run ends when no task was done for this long, in seconds.
STUCK_SECONDS = 60.0
#: The early part of the run whose memory is compared, as shares of all tasks: before it
#: the worker fills its caches.
EARLY = (0.1, 0.2)
#: The late part of the run whose memory is compared, as shares of all tasks.
LATE = (0.9, 1.0)
#: Results expire soon, so that the server's memory does not grow.
DEFAULTS = "\n[defaults]\nresult_expires_seconds = 60\n"


@dataclass(frozen=True, slots=True)
class Look:
    """One look: tasks done, seconds since the first one, memory in 10^6 bytes."""

    done: int
    seconds: float
    worker_mb: float
    server_mb: float


def soak() -> Report:
    """Resident memory of one worker over SOAK_TASKS tasks (a million by default).

    512 in flight on an engine of 20 ms. Copies of one prepared message are pushed in
    portions; results expire after a minute. Memory is read every two seconds; growth
    is the median of the last tenth over the median of the second tenth.
    """
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        settings = _settings(rig)
        client = redis.Redis.from_url(rig.server.url)
        rig.keep(client.close)
        push = _pusher(rig, settings, client)
        worker = rig.worker(settings)
        looks = list(_looks(rig, client, worker, push))
    early, late = _memory(looks, EARLY), _memory(looks, LATE)
    rate = (looks[-1].done - looks[0].done) / (looks[-1].seconds - looks[0].seconds)
    return Report(
        ("tasks", "seconds", "worker MB", "server MB"),
        tuple(_row(look) for look in _tenths(looks)),
        (Goal("soak growth of the worker", late - early, 5, "MB", at_most=True),),
        (
            f"{rate:,.0f} tasks/s; most {max(look.worker_mb for look in looks):.1f} MB",
            f"median from 10 to 20 %: {early:.2f} MB, from 90 %: {late:.2f} MB",
        ),
    )


def _settings(rig: Rig) -> Settings:
    path = rig.folder / "fleet-soak.toml"
    path.write_text(rig.settings.fleet_file.read_text() + DEFAULTS)
    return settings_module.load(rig.environment(path))


def _pusher(rig: Rig, settings: Settings, client: redis.Redis) -> Callable[[int], None]:
    """What pushes so many copies of one message; no worker runs yet."""
    app = client_of(settings)
    rig.keep(app.close)
    complete = app.modelserver_tasks[0]
    sent = complete.delay("where is the mug?", max_tokens=64, deadline=86_400)
    queue = rig.store.keys.queue(CHAT_MODEL)[0]
    raw = client.rpop(queue)
    # Its deadline would be answered by a worker that finds no such request.
    client.delete(rig.store.keys.deadlines)
    if not isinstance(raw, bytes):
        raise RuntimeError(f"no message in {queue}")
    messages = _copies(raw.split(sent.id.encode()))
    return lambda number: _push(client, queue, messages, number)


def _looks(
    rig: Rig, client: redis.Redis, worker: Processes, push: Callable[[int], None]
) -> Iterator[Look]:
    """Keep the queue filled until all tasks are done, and look now and then."""
    left, done, moved = TASKS, 0, time.monotonic()
    began = told = moved
    while done < TASKS:
        backlog = read_backlog(rig.store, CHAT_MODEL)
        if left and backlog < PORTION / 2:
            portion = min(left, PORTION - backlog)
            push(portion)
            left -= portion
        time.sleep(SOAK_LOOK_SECONDS / 10 if left < PORTION else SOAK_LOOK_SECONDS)
        now, before = time.monotonic(), done
        done = read_answers(rig.store).get("stored", 0)
        moved = now if done > before else moved
        if now - moved > STUCK_SECONDS or not worker.alive:
            raise RuntimeError(f"the worker stands still after {done:,} tasks")
        server = client.info("memory")["used_memory"] / 1e6
        yield Look(done, now - began, worker.rss_mb(), server)
        if now - told > 10:
            told = now
            _tell(done, now - began, worker)


def _tell(done: int, seconds: float, worker: Processes) -> None:
    left = (TASKS - done) * seconds / max(done, 1)
    print(
        f"  {done:,} of {TASKS:,} tasks, {worker.rss_mb():.1f} MB, {left:.0f} s left",
        flush=True,
    )


def _memory(looks: list[Look], part: tuple[float, float]) -> float:
    """The worker's median memory in a part of the run; NaN where nobody looked."""
    first, last = part[0] * TASKS, part[1] * TASKS
    found = [look.worker_mb for look in looks if first <= look.done <= last]
    return statistics.median(found) if found else float("nan")


def _tenths(looks: list[Look]) -> Iterator[Look]:
    """The first look after each tenth of the tasks."""
    for tenth in range(1, 11):
        yield next(look for look in looks if look.done >= TASKS * tenth / 10)


def _row(look: Look) -> tuple[str, float, float, float]:
    return (f"{look.done:,}", look.seconds, look.worker_mb, look.server_mb)
