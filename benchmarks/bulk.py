"""What a row of a run costs: the worker, the server, and whoever submits and reads."""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.machine import Elsewhere
from benchmarks.peers.producer import prompt
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from benchmarks.stacks import OURS, STACKS, Stack, python_of
from benchmarks.steady import steady
from benchmarks.throughput import ENGINE_SECONDS, Figures, bare, measure
from modelserver import settings as settings_module
from modelserver.messaging.wire import COMPLETE
from modelserver.runs.lane import Lane
from modelserver.runs.rows import Row
from modelserver.store.fleet.workers import read_answers
from tests.support.processes import eventually

ROUNDS = 3
#: Rows in flight.
IN_FLIGHT = 512
#: Rows in the queue before the worker starts.
ROWS = 12_000
#: Rows that go through a server that does nothing else.
ROWS_OF_SERVER = 20_000
#: Rows that are handed to the lane together.
BLOCK = 2_000
#: The longest that a worker is measured, in seconds.
WINDOW_SECONDS = 5.0
#: The peer that acknowledges after the work and costs least.
PEER = "taskiq stream"
PARAMETERS = {"max_tokens": 64}


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What a row costs beside the worker."""

    #: Rows submitted, and answers read, in a second.
    submitted: float
    received: float
    #: The server's CPU time for a row, submission and answer included.
    server_us: float
    #: The server's memory for a queued row, beyond its text.
    queued_bytes: float


def bulk() -> Report:
    """Rows in bundles, requests by ``.delay``, the best peer, and a bare client.

    All on an engine of 200 ms with 512 in flight and one worker process, round by
    round; the queue is filled before the worker starts. The server's cost is its
    CPU time for submission, work, and reading back.
    """
    runs: dict[str, list[Figures]] = defaultdict(list)
    servers: list[ServerFigures] = []
    home = settings_module.load()
    peer = next(stack for stack in STACKS if stack.name == PEER)
    stacks: list[tuple[Stack, str]] = [(OURS, sys.executable)]
    try:
        stacks.append((peer, str(python_of(peer, home))))
    except Exception as error:
        print(f"  without {PEER}: {error}")
    for number in range(ROUNDS):
        runs["rows in bundles"].append(_bundles())
        for stack, python in stacks:
            runs[stack.name].append(measure(stack, python, IN_FLIGHT))
        runs["bare client"].append(bare(sys.executable, IN_FLIGHT))
        servers.append(_server())
        last = {name: figures[-1] for name, figures in runs.items()}
        print(f"  round {number + 1} {last} {servers[-1]}", flush=True)
    return _report(runs, servers)


def _rows(number: int) -> Iterator[list[Row]]:
    for start in range(0, number, BLOCK):
        yield [
            Row(place, COMPLETE, prompt(place), PARAMETERS)
            for place in range(start, min(start + BLOCK, number))
        ]


def _bundles() -> Figures:
    with Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig:
        lane = Lane(rig.client(), "bulk")
        for block in _rows(ROWS):
            lane.send(block)
        elsewhere = Elsewhere()

        def done() -> int:
            return read_answers(rig.store).get("stored", 0)

        worker = rig.worker(wait=False)
        last = ROWS - 2 * IN_FLIGHT
        first = 2 * IN_FLIGHT
        found = steady(worker, rig.server, done, first, last, WINDOW_SECONDS)
        others = elsewhere.cores()
        answers = [each for each in lane.receive(5.0) if each.error is None]
        if not answers or not answers[0].value.startswith("echo "):
            raise RuntimeError("rows were not answered")
    return Figures(found.rate, found.cpu_ms, found.rss_mb, others=others)


def _server() -> ServerFigures:
    """Rows through a server: submitted, worked off, read back and settled."""
    with Rig("--latency", "0.05", limit=IN_FLIGHT) as rig:
        lane = Lane(rig.client(), "bulk")
        blocks = list(_rows(ROWS_OF_SERVER))
        lane.send(blocks[0][:1])
        memory, before = _memory(rig), rig.server.cpu_seconds()
        began = time.monotonic()
        for block in blocks:
            lane.send(block)
        submitted = ROWS_OF_SERVER / (time.monotonic() - began)
        text = sum(len(row.payload) for block in blocks for row in block)
        queued = (_memory(rig) - memory - text) / ROWS_OF_SERVER
        worker = rig.worker(wait=False)

        def done() -> int:
            return read_answers(rig.store).get("stored", 0)

        eventually(lambda: done() >= ROWS_OF_SERVER, 120)
        began, number = time.monotonic(), 0
        while number < ROWS_OF_SERVER:
            found = lane.receive(5.0)
            lane.settle([each.number for each in found])
            number += len(found)
        received = ROWS_OF_SERVER / (time.monotonic() - began)
        cost = 1e6 * (rig.server.cpu_seconds() - before) / ROWS_OF_SERVER
        worker.end()
    return ServerFigures(submitted, received, cost, queued)


def _memory(rig: Rig) -> int:
    return int(rig.store.client.info("memory")["used_memory"])


def _report(runs: dict[str, list[Figures]], servers: list[ServerFigures]) -> Report:
    def middle(name: str, field: str) -> float:
        return statistics.median(float(getattr(run, field)) for run in runs[name])

    def of_server(field: str) -> float:
        return statistics.median(float(getattr(each, field)) for each in servers)

    def over(name: str, other: str) -> float:
        pairs = zip(runs[name], runs[other], strict=True)
        return statistics.median(one.cpu_ms / two.cpu_ms for one, two in pairs)

    rows = []
    for name in runs:
        fields = ("rate", "cpu_ms", "rss_mb", "others")
        figures = [middle(name, field) for field in fields]
        rows.append((name, *figures, over(name, "bare client")))
    own = "rows in bundles"
    cost, queued = of_server("server_us"), of_server("queued_bytes")
    goals = [
        Goal("bulk CPU over a bare client", over(own, "bare client"), 1.7, "", True),
        Goal("bulk RSS", middle(own, "rss_mb"), 120, "MB", at_most=True),
        Goal("server-cost a row", cost, 25, "us", at_most=True),
        Goal("server-cost queued beyond the text", queued, 200, "B", at_most=True),
        Goal("run-submit rows/s", of_server("submitted"), 20_000),
        Goal("run-results rows/s", of_server("received"), 20_000),
    ]
    if PEER in runs:
        goals.append(
            Goal(
                "rows per CPU second over the best peer",
                over(PEER, "rows in bundles"),
                3,
            )
        )
    return Report(
        ("way", "rows/s", "CPU ms/row", "RSS MB", "others' cores", "CPU over bare"),
        tuple(rows),
        tuple(goals),
        (f"medians of {ROUNDS} rounds; {IN_FLIGHT} in flight, model {CHAT_MODEL}",),
    )
