"""What rows of two dependent calls cost their program: ``map_rows`` and ``aio``."""

import json
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import START_SECONDS
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from tests.support.processes import eventually

ROUNDS = 3
#: Rows of one run, with two calls each.
ROWS = 4_000
#: Rows under way at once, and what the engine takes at once.
AT_ONCE = 512
#: How long the engine takes for a request, in seconds.
ENGINE_SECONDS = 0.2
#: What is measured, by the word that the program is given.
WAYS = {
    "map": "map_rows",
    "journal": "map_rows with a journal",
    "aio": "aio and a semaphore",
}


@dataclass(frozen=True, slots=True)
class RowCosts:
    """One run of one way."""

    #: Rows done in a second.
    rate: float
    #: CPU milliseconds of a row in its own program, in the worker, in the server.
    own_ms: float
    worker_ms: float
    server_ms: float


def rollouts() -> Report:
    """Rows whose second call has the answer of the first, on an engine of 200 ms.

    The program, one worker and the server share the machine; what each spends is its
    own CPU time over the run. All ways take turns, round by round.
    """
    runs: dict[str, list[RowCosts]] = defaultdict(list)
    for number in range(ROUNDS):
        for way in WAYS:
            runs[way].append(_measure(way))
            print(f"  round {number + 1} {WAYS[way]}: {runs[way][-1]}", flush=True)

    def middle(way: str, field: str) -> float:
        return statistics.median(float(getattr(run, field)) for run in runs[way])

    fields = ("rate", "own_ms", "worker_ms", "server_ms")
    rows = [(WAYS[way], *(middle(way, field) for field in fields)) for way in WAYS]
    cost = middle("aio", "own_ms") / middle("map", "own_ms")
    return Report(
        ("way", "rows/s", "own CPU ms/row", "worker ms/row", "server ms/row"),
        tuple(rows),
        (Goal("rollouts CPU of aio over map_rows", cost, 1.0),),
        (f"medians of {ROUNDS} rounds; {AT_ONCE} rows at once, model {CHAT_MODEL}",),
    )


def _measure(way: str) -> RowCosts:
    with Rig("--latency", str(ENGINE_SECONDS), limit=AT_ONCE) as rig:
        worker = rig.worker()
        spent, served = worker.cpu_seconds(), rig.server.cpu_seconds()
        program = rig.program([sys.executable, "-m", "benchmarks.rollouts", way], way)
        eventually(lambda: not program.alive, within=2 * START_SECONDS + 60)
        said = json.loads(program.log.read_text().splitlines()[-1])
        return RowCosts(
            ROWS / said["seconds"],
            1e3 * said["cpu"] / ROWS,
            1e3 * (worker.cpu_seconds() - spent) / ROWS,
            1e3 * (rig.server.cpu_seconds() - served) / ROWS,
        )


def _program(way: str) -> None:
    """One way in a program of its own; prints what it took."""
    import asyncio
    import tempfile
    import time

    from modelserver import complete, map_rows

    async def solve(row: int) -> str:
        draft = await complete.aio(f"row {row}", model=CHAT_MODEL, max_tokens=64)
        return str(await complete.aio(draft, model=CHAT_MODEL, max_tokens=64))

    async def by_hand() -> int:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(row: int) -> str:
            async with gate:
                return await solve(row)

        return len(await asyncio.gather(*map(one, range(ROWS))))

    asyncio.run(complete.aio("first", model=CHAT_MODEL, max_tokens=1))
    began, spent = time.monotonic(), time.process_time()
    if way == "aio":
        done = asyncio.run(by_hand())
    else:
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "rows.sqlite" if way == "journal" else None
            run = map_rows(solve, range(ROWS), journal=journal, at_once=AT_ONCE)
            done = sum(outcome.value.startswith("echo ") for outcome in run)
    if done != ROWS:
        raise RuntimeError(f"{done} of {ROWS} rows were done")
    took = {"seconds": time.monotonic() - began, "cpu": time.process_time() - spent}
    print(json.dumps(took))


if __name__ == "__main__":
    _program(sys.argv[1])
