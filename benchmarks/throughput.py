"""Tasks per second, what one costs the worker, and what it adds to the latency."""

import math
import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import redis

from benchmarks.machine import Elsewhere, Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import Rig
from benchmarks.stacks import OURS, STACKS, Stack, python_of
from benchmarks.steady import START_SECONDS, Steady, steady
from modelserver import settings as settings_module
from tests.support.processes import eventually

ROUNDS = 3
#: Requests in flight, one run each.
IN_FLIGHT = (256, 512)
#: How long the engine takes for a request, in seconds.
ENGINE_SECONDS = 0.2
#: Tasks in the queue before the worker starts.
TASKS = 3000
#: The longest that a run is measured, in seconds.
WINDOW_SECONDS = 4.0
#: The light load at which latency is measured: tasks per second, and seconds.
LIGHT = (100, 3.0)
#: How long all results of the light load may take, in seconds.
LATENCY_SECONDS = 60.0
#: Results that the producer reads back and compares.
READ_BACK = 500
#: The row of the client without queue and results.
BARE = "bare client"
#: Rows to measure, separated by commas; all if it says nothing.
CHOSEN = os.environ.get("MODELSERVER_BENCH_STACKS", "")


@dataclass(frozen=True, slots=True)
class Figures:
    """One run. Latencies are seconds beyond the engine's own, NaN if not measured."""

    rate: float
    cpu_ms: float
    rss_mb: float
    #: Microseconds of the server for one request: to submit it, and to execute it.
    server_in: float = math.nan
    server_out: float = math.nan
    p50: float = math.nan
    p99: float = math.nan
    others: float = 0.0


def throughput() -> Report:
    """One prompt per task, an engine of 200 ms: ours, other libraries, bare HTTP.

    The queue is filled first, by a program of its own, and the worker started then, so
    that submission limits nothing. Measured is from the first tasks after the start-up
    until shortly before the end, by counting stored results; then the producer reads
    results back by its library's own means and compares them. Latency comes from a
    second phase at a light load and from seeing the result's key appear. CPU and memory
    are the worker's with its children; the server's time is apart, while the queue is
    filled and while the worker is measured. All stacks take turns, round by round.
    Their blocking tasks use http.client, the others aiohttp.
    """
    home = settings_module.load()
    stacks = [stack for stack in STACKS if _is_chosen(stack.name)]
    pythons = {stack.name: str(python_of(stack, home)) for stack in stacks}
    runs: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    for number in range(ROUNDS):
        for in_flight in IN_FLIGHT:
            for stack in stacks:
                if in_flight > IN_FLIGHT[0] and not stack.wide:
                    continue
                figures = measure(stack, pythons[stack.name], in_flight)
                runs[stack.name, in_flight].append(figures)
                print(f"  round {number + 1} {in_flight} {stack.name}: {figures}")
            if _is_chosen(BARE):
                alone = bare(str(python_of(STACKS[1], home)), in_flight)
                runs[BARE, in_flight].append(alone)
    return _report(runs)


def _is_chosen(row: str) -> bool:
    return not CHOSEN or row in CHOSEN.split(",")


def measure(stack: Stack, python: str, in_flight: int) -> Figures:
    """One run of one stack: its throughput, then its latency, each on its own rig."""
    with Rig("--latency", str(ENGINE_SECONDS), limit=in_flight) as rig:
        run = _Run(stack, python, in_flight, rig)
        ids = run.fill(TASKS)
        elsewhere = Elsewhere()
        figures = run.saturate()
        others = elsewhere.cores()
        run.read_back(ids[: min(READ_BACK, run.done() // 2)])
    p50 = p99 = math.nan
    if in_flight == IN_FLIGHT[0] and figures.rate > 1.25 * LIGHT[0]:
        with Rig("--latency", str(ENGINE_SECONDS), limit=in_flight) as rig:
            p50, p99 = _Run(stack, python, in_flight, rig).latencies()
    server = (run.server_in, figures.server_us)
    cost = (figures.rate, figures.cpu_ms, figures.rss_mb, *server)
    return Figures(*cost, p50, p99, others)


class _Run:
    """One stack at work in a rig."""

    def __init__(self, stack: Stack, python: str, in_flight: int, rig: Rig) -> None:
        self.stack = stack
        self.rig = rig
        self.in_flight = in_flight
        self.python = python
        self.redis = redis.Redis.from_url(rig.server.url)
        rig.keep(self.redis.close)
        self.environment = {
            "REDIS_URL": rig.server.url,
            "ENGINE_URL": rig.engines[0].url,
            "IN_FLIGHT": str(in_flight),
            "KIND": stack.kind,
        }

    def fill(self, number: int) -> list[str]:
        """Queue so many tasks; their ids."""
        served = self.rig.server.cpu_seconds()
        lines = self._produce("fill", str(number)).splitlines()
        self.server_in = 1e6 * (self.rig.server.cpu_seconds() - served) / number
        self.total = number
        self.keys_before = int(self.redis.dbsize())
        return [line.split("\t")[1] for line in lines]

    def done(self) -> int:
        """How many tasks have their result stored."""
        if self.stack.queue:
            return self.total - int(self.redis.zcard(self.stack.queue))
        return int(self.redis.dbsize()) - self.keys_before

    def start(self) -> Processes:
        """Start the stack's worker."""
        if self.stack is OURS:
            return self.rig.worker(wait=False)
        words = [word.format(n=self.in_flight) for word in self.stack.worker]
        argv = [self.python, "-m", *words]
        return self.rig.program(argv, self.stack.name, **self.environment)

    def saturate(self) -> Steady:
        """Start the worker and measure it while the queue is full."""
        self.worker = self.start()
        first = min(2 * self.in_flight, self.total // 10)
        last = self.total - self.in_flight
        server = self.rig.server
        return steady(self.worker, server, self.done, first, last, WINDOW_SECONDS)

    def read_back(self, ids: list[str]) -> None:
        """Read results by the library's own means; raises unless all are right."""
        right = int(self._produce("read", given="\n".join(ids)))
        if right != len(ids):
            raise RuntimeError(f"{self.stack.name}: {len(ids)} read, {right} right")

    def latencies(self) -> tuple[float, float]:
        """Median and 99th percentile of what is added at a light load, in seconds."""
        self.start()
        self._trickle(LIGHT[0], 1.0)
        added = self._trickle(*LIGHT)
        cuts = statistics.quantiles(added, n=100)
        return cuts[49], cuts[98]

    def _trickle(self, rate: int, seconds: float) -> list[float]:
        """Submit at a steady rate; what each result took beyond the engine's time."""
        argv = [self.python, "-m", self.stack.producer, "trickle"]
        argv += [str(rate), str(seconds)]
        producer = self.rig.program(argv, f"trickle-{seconds:g}", **self.environment)
        waiting: dict[str, float] = {}
        added: list[float] = []
        seen = 0
        deadline = time.monotonic() + LATENCY_SECONDS
        while producer.alive or waiting:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.stack.name}: {len(waiting)} without result")
            lines = producer.log.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            for line in whole[seen:]:
                at, _, key = line.rstrip("\n").split("\t")
                waiting[key] = float(at)
            seen = len(whole)
            for key in self._stored(list(waiting)):
                added.append(time.monotonic() - waiting.pop(key) - ENGINE_SECONDS)
            time.sleep(0.002)
        return added

    def _stored(self, keys: list[str]) -> list[str]:
        with self.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.exists(key)
            found = pipe.execute()
        return [key for key, there in zip(keys, found, strict=True) if there]

    def _produce(self, *arguments: str, given: str = "") -> str:
        argv = [self.python, "-m", self.stack.producer, *arguments]
        environment = self.rig.environment(self.rig.settings.fleet_file)
        done = subprocess.run(
            argv,
            env=environment | self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"{self.stack.name} {arguments}: {done.stderr[-2000:]}")
        return done.stdout


def bare(python: str, in_flight: int) -> Figures:
    """The bare client: the same requests without queue and results."""
    with Rig("--latency", str(ENGINE_SECONDS)) as rig:
        environment = {
            "REDIS_URL": "",
            "ENGINE_URL": rig.engines[0].url,
            "IN_FLIGHT": str(in_flight),
        }
        argv = [python, "-m", "benchmarks.peers.bare_peer", str(TASKS)]
        elsewhere = Elsewhere()
        client = rig.program(argv, "bare", **environment)

        def done() -> int:
            return int(rig.engines[0].stats()["completed"])

        eventually(lambda: done() >= in_flight, START_SECONDS)
        before, cpu, began = done(), client.cpu_seconds(), time.monotonic()
        time.sleep(2.0)
        number, seconds = done() - before, time.monotonic() - began
        spent, rss = client.cpu_seconds() - cpu, client.rss_mb()
        cost = 1000 * spent / max(number, 1)
        return Figures(number / seconds, cost, rss, others=elsewhere.cores())


def _report(runs: dict[tuple[str, int], list[Figures]]) -> Report:
    def middle(name: str, in_flight: int, field: str) -> float:
        values = [float(getattr(run, field)) for run in runs[name, in_flight]]
        return statistics.median(values)

    rows = []
    for (name, in_flight), figures in runs.items():
        rates = [run.rate for run in figures]
        names = ("cpu_ms", "rss_mb", "server_in", "server_out", "p50", "p99", "others")
        cpu, rss, *server, p50, p99, others = (
            middle(name, in_flight, field) for field in names
        )
        spread = f"{min(rates):.0f}-{max(rates):.0f}"
        cost = (statistics.median(rates), spread, cpu, rss, *server)
        rows.append((name, in_flight, *cost, 1000 * p50, 1000 * p99, others))

    def figures_of(names: Iterable[str], field: str) -> list[float]:
        return [middle(*run, field) for run in runs if run[0] in names]

    peers = [each.name for each in STACKS if each.acks_after and each is not OURS]
    best = min(figures_of(peers, "cpu_ms"), default=math.nan)
    # The engine's 200 ms allow 1,280/s with 256 in flight.
    rate = max(figures_of([OURS.name], "rate"), default=math.nan)
    cpu = min(figures_of([OURS.name], "cpu_ms"), default=math.nan)
    rss = max(figures_of([OURS.name], "rss_mb"), default=math.nan)
    return Report(
        (
            "stack",
            "in flight",
            "tasks/s",
            "spread",
            "CPU ms/task",
            "RSS MB",
            "server us in",
            "server us out",
            "added p50 ms",
            "added p99 ms",
            "others' cores",
        ),
        tuple(rows),
        (
            Goal("throughput tasks/s", rate, 1000),
            Goal("throughput worker CPU per task", cpu, 0.7, "ms", at_most=True),
            Goal("throughput worker RSS", rss, 120, "MB", at_most=True),
            Goal("tasks per CPU second over the best peer", best / cpu, 1.5),
        ),
        (f"medians of {ROUNDS} rounds; latency at {LIGHT[0]} tasks/s",),
    )
