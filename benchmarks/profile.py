"""Where the worker's CPU time goes: a profile of its hot path, by part."""

import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import redis

from benchmarks.queue_depth import _copies, _push, _template
from benchmarks.report import Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.store.fleet.workers import read_answers
from tests.support.processes import eventually

IN_FLIGHT = 256
ENGINE_SECONDS = 0.2
#: Enough for all rounds: what one engine can do in a second is IN_FLIGHT over its time.
TASKS = 100_000
WARM_TASKS = 4 * IN_FLIGHT
#: Samples of the stack in each second.
SAMPLES_A_SECOND = 400
#: How long a round is, in seconds.
SECONDS = 12
ROUNDS = 3
#: The frame of the worker's loop; other threads have none.
LOOP = "run_forever"
#: Files by part. A sample belongs to the part of its innermost frame that is in a part:
#: libraries (asyncio, selectors, orjson) count for their callers.
PARTS = {
    "HTTP to the engine": "/aiohttp/ /yarl/ /multidict/ modelserver/engine_client.py",
    "Redis": "/redis/ /hiredis/",
    "events": "celery/events/ workers/celery_hooks.py",
    "tracer": "celery/app/trace.py celery/app/task.py celery/utils/dispatch/",
    "result": "workers/delivery/ modelserver/messaging/backend.py celery/backends/ "
    "modelserver/messaging/encoding.py modelserver/store/batch.py",
    "executor": "workers/requests/ workers/engines/ modelserver/messaging/requests.py "
    "modelserver/values.py modelserver/store/fleet/measurements.py",
    "reception": "celery/worker/ /kombu/ /vine/ workers/ modelserver/messaging/wire.py "
    "modelserver/messaging/transport.py",
}
OTHER = "asyncio itself, and the rest"


def profile() -> Report:
    """Shares of the worker's CPU time, by part, with 256 in flight.

    py-spy takes samples of the thread of the worker's loop while a filled queue keeps
    it busy, three times.
    """
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        client = redis.Redis.from_url(rig.server.url)
        rig.keep(client.close)
        messages = _copies(_template(rig, client))
        _push(client, rig.store.keys.queue(CHAT_MODEL)[0], messages, TASKS)
        worker = rig.worker(wait=False)
        eventually(lambda: read_answers(rig.store).get("stored", 0) > WARM_TASKS, 60)
        rounds = [
            shares(_stacks(worker.process.pid, rig.folder)) for _ in range(ROUNDS)
        ]
    rows = [
        (
            part,
            100 * statistics.median(each[part] for each in rounds),
            100 * min(each[part] for each in rounds),
            100 * max(each[part] for each in rounds),
        )
        for part in (*PARTS, OTHER)
    ]
    rows.sort(key=lambda row: -row[1])
    return Report(("part", "share %", "least", "most"), tuple(rows), ())


def _stacks(pid: int, folder: Path) -> str:
    """Folded stacks, a line each: frames from the outermost on, and their samples."""
    file = folder / "stacks.txt"
    options = ["--pid", str(pid), "--rate", str(SAMPLES_A_SECOND), "--full-filenames"]
    options += ["--duration", str(SECONDS), "--format", "raw", "--output", str(file)]
    program = Path(sys.executable).with_name("py-spy")
    argv = [str(program), "record", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(
            f"py-spy cannot look into the worker, pid {pid}: {done.stderr.strip()}; "
            "run this as root, or set kernel.yama.ptrace_scope to 0"
        )
    return file.read_text()


def shares(stacks: str) -> dict[str, float]:
    """Each part's share of the loop's samples, 0 to 1.

    >>> line = "run_forever (asyncio/base_events.py:1);_run (workers/requests/x.py:9) 3"
    >>> shares(line)["executor"]
    1.0
    """
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, number = line.rpartition(" ")
        if LOOP in frames:
            found[_part(frames)] += int(number)
    total = found.total()
    return {part: found[part] / total for part in (*PARTS, OTHER)}


def _part(frames: str) -> str:
    for frame in reversed(frames.split(";")):
        for part, files in PARTS.items():
            if any(file in frame for file in files.split()):
                return part
    return OTHER
