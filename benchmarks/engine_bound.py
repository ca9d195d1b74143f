"""What the way through queue, worker and store costs on a real engine."""

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import Elsewhere
from benchmarks.report import Goal, Report
from modelserver import settings as settings_module
from modelserver.api import client
from modelserver.cli.stack import Stack
from modelserver.client import COMPLETIONS, ask, open_session
from modelserver.model import EngineState
from modelserver.settings import Settings
from modelserver.store import connect
from tests.support import eventually

MODEL = "tiny-chat"
REQUESTS = 256
IN_FLIGHT = 32
ROUNDS = 5
#: An engine's environment may have to be installed first, in seconds.
READY_SECONDS = 1200.0
SAMPLING = {"max_tokens": 64, "temperature": 0, "ignore_eos": True}
FLEET = f"""
[[models]]
name = "{MODEL}"
path = "builtin:tiny-chat"
engine = "sglang-cpu"
context_length = 4096
max_running = {IN_FLIGHT}
"""


def engine_bound() -> Report:
    """256 requests, 32 in flight, to one real SGLang: complete.delay over bare HTTP.

    The whole stack runs (embedded server, launcher, worker, beat). The bare client is
    an asyncio program with the same HTTP client and the same bodies. Both take turns;
    every round has prompts of its own, so no cached prefix helps one of them.
    """
    rows: list[tuple[Any, ...]] = []
    ratios = []
    with stack() as settings:
        url = _ready_engine(settings)
        _through_tasks(settings, _prompts("warm", 64))
        asyncio.run(_bare(settings, url, _prompts("bare", 64)))
        for number in range(ROUNDS):
            elsewhere = Elsewhere()
            ours, bare = _one_round(settings, url, number)
            ratios.append(bare / ours)
            figures = (ours, REQUESTS / ours, bare, REQUESTS / bare, bare / ours)
            rows.append((f"round {number + 1}", *figures, elsewhere.cores()))
    ratio = statistics.median(ratios)
    spread = f"ratio over {ROUNDS} rounds: {min(ratios):.3f} to {max(ratios):.3f}"
    return Report(
        ("", "tasks s", "per s", "bare s", "per s", "ratio", "others' cores"),
        tuple(rows),
        (Goal("engine-bound ratio to a bare client", ratio, 0.95),),
        (spread,),
    )


def _one_round(settings: Settings, url: str, number: int) -> tuple[float, float]:
    """Seconds through the tasks and by the bare client; who begins changes."""
    seconds = {}
    for way in ("task", "bare") if number % 2 == 0 else ("bare", "task"):
        prompts = _prompts(f"{way}{number}", REQUESTS)
        if way == "task":
            seconds[way] = _through_tasks(settings, prompts)
        else:
            seconds[way] = asyncio.run(_bare(settings, url, prompts))
    return seconds["task"], seconds["bare"]


@contextmanager
def stack() -> Iterator[Settings]:
    """The stack of one tiny model, in a run folder that goes with it."""
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
        yield settings
    finally:
        programs.stop()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(settings.run_dir, ignore_errors=True)


def _ready_engine(settings: Settings) -> str:
    store = connect(settings)

    def url() -> str:
        for engine in store.engines().values():
            if engine.state is EngineState.FATAL:
                raise RuntimeError(f"engine {engine.id} cannot run: {engine.reason}")
            if engine.serves:
                return engine.url
        return ""

    try:
        return eventually(url, within=READY_SECONDS)
    finally:
        store.client.close()


def _prompts(name: str, number: int) -> list[str]:
    return [f"{name} {place}: the mug stands on the counter" for place in range(number)]


def _through_tasks(settings: Settings, prompts: list[str]) -> float:
    """Seconds from the first submission until the last answer was read."""
    app = client(settings)
    complete = app.modelserver_tasks[0]
    try:
        began = time.monotonic()
        sent = [complete.delay(prompt, **SAMPLING) for prompt in prompts]
        answers = [result.get(timeout=300) for result in sent]
        seconds = time.monotonic() - began
    finally:
        app.close()
    if not all(answers):
        raise RuntimeError("an answer is empty")
    return seconds


async def _bare(settings: Settings, url: str, prompts: list[str]) -> float:
    """Seconds that a bare asyncio client takes for the same."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(prompt: str) -> str:
        async with gate:
            body = {"model": MODEL, "prompt": prompt, **SAMPLING}
            answer = await ask(session, url + COMPLETIONS, body)
        return str(answer["choices"][0]["text"])

    async with open_session(keys=settings.keyring()) as session:
        began = time.monotonic()
        answers = await asyncio.gather(*map(one, prompts))
        seconds = time.monotonic() - began
    if not all(answers):
        raise RuntimeError("an answer is empty")
    return seconds
