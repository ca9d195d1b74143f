"""Single texts to embed on a real engine, against a bare client that knows them all."""

import asyncio
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

from benchmarks.engine_bound import READY_SECONDS
from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from modelserver import settings as settings_module
from modelserver.api import client
from modelserver.cli.local_stack import Stack
from modelserver.engine_client import ask, open_session
from modelserver.engine_protocol import EMBEDDINGS_PATH
from modelserver.keyring import Keyring
from modelserver.runs.embedding import embed_texts
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.workers import read_answers, read_backlog
from modelserver.values import EngineReport, EngineState
from tests.support.processes import eventually

MODEL = "tiny-embed"
#: Texts of a run; a quarter of them if they go one by one.
TEXTS = 4_000
ROUNDS = 3
#: What the engine runs at once, and the worker has in flight: several batches' worth,
#: or the engine waits for the next batch to collect.
MAX_RUNNING = 512
#: Texts in a request with which the bare client is quickest, of 1, 32, 64 and 128.
IDEAL_BATCH = 32
#: Requests in flight with which the bare client is quickest, of two to eight.
IDEAL_IN_FLIGHT = 4
#: Requests of one text each that the bare client has in flight.
SINGLES_IN_FLIGHT = 64
#: Answers that are read back and looked at.
READ_BACK = 20
FLEET = f"""
[[models]]
name = "{MODEL}"
path = "builtin:tiny-embed"
kind = "embedding"
engine = "sglang-cpu"
context_length = 4096
max_running = {MAX_RUNNING}
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: texts per second, and CPU time for a text in worker and engine."""

    rate: float
    worker_ms: float
    engine_ms: float


def embeddings() -> Report:
    """One text per task on real SGLang (CPU), and bare HTTP to the same engine.

    ``embed_texts`` is measured from its call to its array. For tasks the queue is
    filled first, while the worker is told not to consume; measured is from the word to
    consume until the last result is stored: what reads the results is the worker here,
    and the bare client there. ``raw`` requests go one by one, where all others go
    together with those that wait with them. All take turns; no text is sent twice.
    """
    runs: dict[str, list[Figures]] = defaultdict(list)
    elsewhere = Elsewhere()
    with _site() as site:
        ways: dict[str, Callable[[str], Figures]] = {
            "modelserver": site.ours,
            "embed_texts": site.array,
            "modelserver, one by one": lambda name: site.ours(name, raw=True),
            f"bare, batches of {IDEAL_BATCH}": site.batches,
            "bare, singles": site.singles,
        }
        for number in range(ROUNDS + 1):
            for name, way in ways.items():
                figures = way(f"{name} {number}")
                if number:  # The first round is to warm up.
                    runs[name].append(figures)
    return _report(runs, elsewhere)


def _report(runs: dict[str, list[Figures]], elsewhere: Elsewhere) -> Report:
    rows, rates = [], []
    for name, figures in runs.items():
        each = [one.rate for one in figures]
        rates.append(statistics.median(each))
        worker = statistics.median(one.worker_ms for one in figures)
        engine = statistics.median(one.engine_ms for one in figures)
        rows.append((name, rates[-1], min(each), max(each), worker, engine))
    ours, array, alone, batches, singles = rates
    return Report(
        ("way", "texts/s", "least", "most", "worker ms", "engine ms"),
        tuple(rows),
        (
            Goal("embeddings over ideal batches", ours / batches, 0.9),
            Goal("embed_texts over ideal batches", array / batches, 1.0),
            Goal("embeddings over bare singles", ours / singles, 1.0),
            Goal("embeddings together over one by one", ours / alone, 1.0),
        ),
        (
            f"{TEXTS} texts a run; worker and engine: CPU time for a text",
            f"others used {elsewhere.cores():.1f} cores meanwhile",
        ),
    )


class Site:
    """One engine, one worker, and the ways to send texts to it."""

    def __init__(
        self, app: Celery, store: Store, stack: Stack, engine: EngineReport
    ) -> None:
        self.app = app
        self.keys = stack.settings.keyring()
        self.store = store
        self.engine = engine
        self.worker = next(
            program.process.pid
            for program in stack.programs
            if program.name == "worker" and program.process
        )

    def ours(self, name: str, **options: Any) -> Figures:
        """Through the queue; ``options`` are the task's."""
        texts = _texts(name, TEXTS // 4 if options else TEXTS)
        embed, control = self.app.modelserver_tasks[2], self.app.control
        control.cancel_consumer(MODEL, reply=True, limit=1, timeout=10)
        sent = [embed.delay(text, **options) for text in texts]
        if read_backlog(self.store, MODEL) != len(texts):
            raise RuntimeError("not all texts are in the queue")
        stored = self._stored() + len(texts)
        with self._measured(len(texts)) as figures:
            control.add_consumer(MODEL)
            eventually(lambda: self._stored() >= stored, 120)
        for result in sent[:: len(sent) // READ_BACK]:
            if not result.get(timeout=30):
                raise RuntimeError("an answer is empty")
        return figures[0]

    def array(self, name: str) -> Figures:
        """By ``embed_texts``, from the call until all vectors are there."""
        texts = _texts(name, TEXTS)
        with self._measured(len(texts)) as figures:
            vectors = embed_texts(texts, model=MODEL, progress=False, app=self.app)
        if len(vectors) != len(texts):
            raise RuntimeError("a vector is missing")
        return figures[0]

    def batches(self, name: str) -> Figures:
        """By the bare client, as if one knew all texts beforehand."""
        return self._bare(_texts(name, TEXTS), IDEAL_BATCH, IDEAL_IN_FLIGHT)

    def singles(self, name: str) -> Figures:
        """By the bare client, one text in each request."""
        return self._bare(_texts(name, TEXTS // 4), 1, SINGLES_IN_FLIGHT)

    def _bare(self, texts: list[str], batch: int, in_flight: int) -> Figures:
        with self._measured(len(texts)) as figures:
            asyncio.run(_send(self.keys, self.engine.url, texts, batch, in_flight))
        return figures[0]

    def _stored(self) -> int:
        return read_answers(self.store).get("stored", 0)

    @contextmanager
    def _measured(self, texts: int) -> Iterator[list[Figures]]:
        """The figures of what is done within, put into the list at the end."""
        figures: list[Figures] = []
        worker, engine = _cpu_seconds(self.worker), _cpu_seconds(self.engine.pid)
        began = time.monotonic()
        yield figures
        seconds = time.monotonic() - began
        worker = _cpu_seconds(self.worker) - worker
        engine = _cpu_seconds(self.engine.pid) - engine
        each = 1000 / texts
        figures.append(Figures(texts / seconds, worker * each, engine * each))


@contextmanager
def _site() -> Iterator[Site]:
    """The stack of the one model, in a run folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="modelserver-bench-"))
    fleet = folder / "fleet.toml"
    fleet.write_text(FLEET)
    home = str(settings_module.load().home)
    settings = settings_module.load(
        {"MODELSERVER_FLEET": str(fleet), "MODELSERVER_HOME": home}
    )
    programs = Stack(settings, print, flower=False)
    try:
        programs.start()
        yield from _ready(settings, programs)
    finally:
        programs.stop()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(settings.run_dir, ignore_errors=True)


def _ready(settings: Settings, programs: Stack) -> Iterator[Site]:
    store, app = connect(settings), client(settings)

    def engine() -> EngineReport | None:
        for engine in read_engines(store).values():
            if engine.state is EngineState.FATAL:
                raise RuntimeError(f"engine {engine.id} cannot run: {engine.reason}")
            if engine.serves:
                return engine
        return None

    try:
        yield Site(app, store, programs, eventually(engine, READY_SECONDS))
    finally:
        app.close()
        store.client.close()


def _cpu_seconds(pid: int) -> float:
    """CPU time of a program and its children so far."""
    parent = psutil.Process(pid)
    family = [parent, *parent.children(recursive=True)]
    times = [process.cpu_times() for process in family]
    return sum(spent.user + spent.system for spent in times)


def _texts(name: str, number: int) -> list[str]:
    # The name comes first, or a cached prefix would save the engine its work.
    return [f"{name}, {place}: the mug stands by the sink" for place in range(number)]


async def _send(
    keys: Keyring, url: str, texts: list[str], batch: int, in_flight: int
) -> None:
    """Send all texts; raises unless as many vectors come back."""
    gate = asyncio.Semaphore(in_flight)

    async def one(start: int) -> int:
        body: dict[str, Any] = {
            "model": MODEL,
            "input": texts[start : start + batch],
            "encoding_format": "base64",
        }
        async with gate:
            answer = await ask(session, url + EMBEDDINGS_PATH, body)
        return len(answer["data"])

    async with open_session(keys=keys) as session:
        counts = await asyncio.gather(*map(one, range(0, len(texts), batch)))
    if sum(counts) != len(texts):
        raise RuntimeError(f"{len(texts)} texts sent, {sum(counts)} vectors came back")
