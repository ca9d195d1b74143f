"""What the way through queue, worker and store costs on a real engine."""

import asyncio
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from modelserver import settings as settings_module
from modelserver.api import client
from modelserver.cli.local_stack import Stack
from modelserver.engine_client import ask, open_session
from modelserver.engine_protocol import COMPLETIONS_PATH
from modelserver.runs.mapping import map_prompts
from modelserver.settings import Settings
from modelserver.store import connect
from modelserver.store.fleet.engines import read_engines
from modelserver.values import EngineState
from tests.support.processes import eventually

MODEL = "tiny-chat"
REQUESTS = 256
IN_FLIGHT = 32
ROUNDS = 5
#: How long an engine may take to become ready, in seconds: its environment may have to
#: be installed first.
READY_SECONDS = 1200.0
SAMPLING = {"temperature": 0, "ignore_eos": True}
#: Fewest and most tokens of the answers, by the name of their lengths.
LENGTHS = {"mixed": (32, 96), "equal": (64, 64)}
#: How ours are sent, and the lengths of the answers: all of one `map_prompts` have the
#: same parameters. With the least ratio to a bare client.
LOADS = {("task", "mixed"): 0.95, ("task", "equal"): 0.95, ("map", "equal"): 0.97}
#: A prompt, and how it is to be answered.
Request = tuple[str, dict[str, Any]]
FLEET = f"""
[[models]]
name = "{MODEL}"
path = "builtin:tiny-chat"
engine = "sglang-cpu"
context_length = 4096
max_running = {IN_FLIGHT}
"""


def engine_bound() -> Report:
    """256 requests, 32 in flight, to one real SGLang: ours over bare HTTP.

    Ours are sent by complete.delay ("task") and by map_prompts ("map"). The whole stack
    runs (embedded server, launcher, worker, beat). The bare client is an asyncio
    program with the same HTTP client and the same bodies. They take turns; every round
    has prompts of its own, so no cached prefix helps one of them. Answers are of 32 to
    96 tokens in some rounds, of 64 in the others: of one length, all that begin
    together end together, and the bare client, which sends 32 at once, has the engine
    read 32 prompts in one step where requests that come one by one take many.
    """
    rows: list[tuple[Any, ...]] = []
    ratios: dict[tuple[str, str], list[float]] = {load: [] for load in LOADS}
    with stack() as settings:
        url = ready_engine(settings)
        for way in ("task", "map", "bare"):
            _seconds(way, settings, url, _requests(f"warm {way}", "equal", 64))
        for number in range(ROUNDS):
            for (way, lengths), seen in ratios.items():
                elsewhere = Elsewhere()
                ours, bare = _one_round(settings, url, number, way, lengths)
                seen.append(bare / ours)
                figures = (ours, REQUESTS / ours, bare, REQUESTS / bare, bare / ours)
                rows.append((way, lengths, number + 1, *figures, elsewhere.cores()))
    columns = ("way", "lengths", "round", "ours s", "per s", "bare s", "per s")
    return Report(
        (*columns, "ratio", "others"),
        tuple(rows),
        tuple(
            Goal(f"engine-bound {way} to a bare client, {lengths} lengths", ratio, goal)
            for (way, lengths), goal in LOADS.items()
            for ratio in (statistics.median(ratios[way, lengths]),)
        ),
        tuple(
            f"{way}, {lengths} lengths: ratio over {ROUNDS} rounds {min(seen):.3f} to "
            f"{max(seen):.3f}"
            for (way, lengths), seen in ratios.items()
        ),
    )


def _one_round(
    settings: Settings, url: str, number: int, ours: str, lengths: str
) -> tuple[float, float]:
    """Seconds by our way and by the bare client; who begins changes."""
    seconds = {}
    for way in (ours, "bare") if number % 2 == 0 else ("bare", ours):
        requests = _requests(f"{ours} {way} {number}", lengths, REQUESTS)
        seconds[way] = _seconds(way, settings, url, requests)
    return seconds[ours], seconds["bare"]


def _seconds(way: str, settings: Settings, url: str, requests: list[Request]) -> float:
    if way == "bare":
        return asyncio.run(_bare(settings, url, requests))
    send = {"task": _through_tasks, "map": _through_map}[way]
    app = client(settings)
    try:
        began = time.monotonic()
        answers = send(app, requests)
        seconds = time.monotonic() - began
    finally:
        app.close()
    if len(answers) != len(requests) or not all(answers):
        raise RuntimeError("an answer is empty")
    return seconds


@contextmanager
def stack(text: str = FLEET) -> Iterator[Settings]:
    """The stack of one tiny model, in a run folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="modelserver-bench-"))
    fleet = folder / "fleet.toml"
    fleet.write_text(text)
    home = str(settings_module.load().home)
    settings = settings_module.load(
        {"MODELSERVER_FLEET": str(fleet), "MODELSERVER_HOME": home}
    )
    programs = Stack(settings, print, flower=False)
    try:
        programs.start()
        yield settings
    finally:
        programs.stop()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(settings.run_dir, ignore_errors=True)


def ready_engine(settings: Settings) -> str:
    """The address of its engine, once that serves."""
    store = connect(settings)

    def url() -> str:
        for engine in read_engines(store).values():
            if engine.state is EngineState.FATAL:
                raise RuntimeError(f"engine {engine.id} cannot run: {engine.reason}")
            if engine.serves:
                return engine.url
        return ""

    try:
        return eventually(url, within=READY_SECONDS)
    finally:
        store.client.close()


def _requests(name: str, lengths: str, number: int) -> list[Request]:
    """Prompts of their own, the tokens of their answers the same for both ways."""
    draw = random.Random(number)
    return [
        (
            f"{name} {lengths} {place}: the mug stands on the counter",
            SAMPLING | {"max_tokens": draw.randint(*LENGTHS[lengths])},
        )
        for place in range(number)
    ]


def _through_tasks(app: Celery, requests: list[Request]) -> list[str]:
    complete = app.modelserver_tasks[0]
    sent = [complete.delay(prompt, **sampling) for prompt, sampling in requests]
    return [result.get(timeout=300) for result in sent]


def _through_map(app: Celery, requests: list[Request]) -> list[str]:
    prompts, (_, sampling) = [prompt for prompt, _ in requests], requests[0]
    answers = map_prompts(prompts, model=MODEL, progress=False, app=app, **sampling)
    return [answer.text or "" for answer in answers]


async def _bare(settings: Settings, url: str, requests: list[Request]) -> float:
    """Seconds that a bare asyncio client takes for the same."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(request: Request) -> str:
        async with gate:
            prompt, sampling = request
            body = {"model": MODEL, "prompt": prompt, **sampling}
            answer = await ask(session, url + COMPLETIONS_PATH, body)
        return str(answer["choices"][0]["text"])

    async with open_session(keys=settings.keyring()) as session:
        began = time.monotonic()
        answers = await asyncio.gather(*map(one, requests))
        seconds = time.monotonic() - began
    if not all(answers):
        raise RuntimeError("an answer is empty")
    return seconds
