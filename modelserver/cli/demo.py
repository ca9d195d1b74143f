"""``modelserver demo``: runs the main job here, with an engine killed half-way."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click
import psutil
from rich.console import Console

from modelserver.births import has_ended
from modelserver.cli.demo_batch import DemoFile, FileOutcome
from modelserver.cli.demo_load import Load, LoadOutcome
from modelserver.cli.flower_options import tell_login
from modelserver.cli.local_stack import Stack
from modelserver.cli.output import console, printer
from modelserver.cli.programs import environment, programs_folder, python_program
from modelserver.cli.status import render
from modelserver.cli.stopping import StoppedBySignal, stop_by_signal
from modelserver.cli.up import changes, refresh_flower
from modelserver.errors import ModelserverError
from modelserver.fleet.file import read_fleet
from modelserver.operations.status import EngineStatus, Status, read_status
from modelserver.page.password import find_password
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.store.fleet.engines import read_engines
from modelserver.values import EngineState, Kind

#: The engine type of the demo, unless told otherwise.
DEMO_ENGINE = "sglang-cpu"
#: How long the engines may take to become ready, in seconds.
DEMO_READY_SECONDS = 300.0

#: The demo's fleet file.
DEMO_FLEET = """# Written by `modelserver demo`.
[[models]]
name = "demo-chat"
kind = "completion"
path = {chat}
engine = "{engine}"
gpus = {gpus}
context_length = 4096

[[models]]
name = "demo-embed"
kind = "embedding"
path = {embed}
engine = "{engine}"
gpus = {gpus}
context_length = 4096
"""


@click.command()
@click.option(
    "--model",
    default="builtin:tiny-chat",
    show_default=True,
    help="Chat model: a folder, a Hugging Face id or a built-in model.",
)
@click.option(
    "--embedding-model",
    default="builtin:tiny-embed",
    show_default=True,
    help="Embedding model: a folder, a Hugging Face id or a built-in model.",
)
@click.option(
    "--engine",
    default=DEMO_ENGINE,
    show_default=True,
    type=click.Choice(["sglang-cpu", "sglang"]),
    help="Type of the engines; sglang needs a GPU for each model.",
)
def demo(model: str, embedding_model: str, engine: str) -> None:
    """Run the main job on real engines, with kills half-way, and count the answers.

    450 requests while an engine is killed, and a file of 60 whose command is.
    """
    screen = console()
    settings = _settings(model, embedding_model, engine)
    _install(settings, engine)
    began = time.monotonic()
    stack = Stack(settings, printer(screen, markup=False, highlight=False))
    stop_by_signal()
    try:
        screen.rule("Programs")
        stack.start()
        password = find_password(settings)
        told = tell_login(password, screen.is_terminal, (), os.environ)
        screen.print(f"Flower at {stack.flower_url}, {told}")
        outcome = _run(stack, settings, screen, began)
    except StoppedBySignal as stopped:
        screen.print(f"{stopped}: stopping")
        outcome = None
    finally:
        engines = _engine_pids(settings)
        stack.stop()
    left = [pid for pid in engines if _lives(pid)]
    if outcome is None:
        sys.exit(1)
    load, file = outcome
    say = printer(screen)
    say(f"Processes left behind: {len(left)}. Logs are in {stack.logs}.")
    screen.print(file.line(), highlight=False)
    screen.print(load.line(), highlight=False)
    sys.exit(0 if load.perfect and file.perfect and not left else 1)


def _settings(model: str, embedding_model: str, engine: str) -> Settings:
    own = load()
    folder = own.home / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fleet.toml"
    text = DEMO_FLEET.format(
        chat=json.dumps(_absolute(model)),
        embed=json.dumps(_absolute(embedding_model)),
        engine=engine,
        gpus=1 if engine == "sglang" else 0,
    )
    path.write_text(text)
    return dataclasses.replace(own, fleet=read_fleet(path), fleet_file=path)


def _absolute(model: str) -> str:
    return str(Path(model).absolute()) if Path(model).is_dir() else model


def _install(settings: Settings, engine: str) -> None:
    """Install the engine's environment, by a program that shows its own progress."""
    argv = python_program("launcher.environments", "--home", str(settings.engines_home))
    done = subprocess.run(
        [*argv, "install", engine],
        cwd=programs_folder(),
        env=environment(settings),
        check=False,
    )
    if done.returncode:
        raise ModelserverError(
            f"the environment of {engine} could not be installed; see above"
        )


def _run(
    stack: Stack, settings: Settings, screen: Console, began: float
) -> tuple[LoadOutcome, FileOutcome]:
    store = connect(settings)
    screen.rule("Engines")
    _await_ready(stack, store, settings, screen)
    load = Load(settings, store, screen)
    load.first_answer()
    screen.print(f"First answer {time.monotonic() - began:.1f} s after the start.")
    refresh_flower(stack)
    screen.rule("Requests")
    outcome = load.run(victim=_victim(store, settings))
    screen.rule("Answers")
    load.show_answers()
    screen.rule("Engines, as read from Redis")
    found = _settled(store, settings)
    screen.print(render(found))
    for model in found.models:
        if model.kind is Kind.COMPLETION:
            screen.print(
                f"{model.name}: {model.cut_off} answers cut off by max_tokens",
                highlight=False,
            )
    screen.rule("A file of requests")
    return outcome, _run_file(store, settings, screen)


def _run_file(store: Store, settings: Settings, screen: Console) -> FileOutcome:
    model = _victim(store, settings).model

    def requests() -> int:
        engines = read_status(store, settings).engines
        return sum(engine.requests for engine in engines if engine.model == model)

    return DemoFile(settings, model, screen, requests).run()


def _settled(store: Store, settings: Settings) -> Status:
    """The status once the workers' reports say that all is done."""
    end = time.monotonic() + 3
    while True:
        status = read_status(store, settings)
        busy = sum(engine.inflight for engine in status.engines)
        if not busy or time.monotonic() > end:
            return status
        time.sleep(0.1)


def _await_ready(
    stack: Stack, store: Store, settings: Settings, screen: Console
) -> None:
    seen: dict[str, str] = {}
    began = time.monotonic()
    with screen.status("") as spinner:
        while True:
            stack.look_after(time.monotonic())
            status = read_status(store, settings)
            for line in changes(seen, status):
                stack.say(line)
            states = {engine.state for engine in status.engines}
            waited = time.monotonic() - began
            if status.engines and all(state.serves for state in states):
                return
            if EngineState.FATAL in states or waited > DEMO_READY_SECONDS:
                raise ModelserverError(
                    f"the engines did not get ready within {waited:.0f} s; see the "
                    f"logs in {stack.logs}"
                )
            spinner.update(
                f"{waited:.0f} s: engines start (about 10 s; the first start of a "
                "fresh environment takes longer)"
            )
            time.sleep(0.25)


def _victim(store: Store, settings: Settings) -> EngineStatus:
    models = {model.name: model.kind for model in read_status(store, settings).models}
    return next(
        engine
        for engine in read_status(store, settings).engines
        if models[engine.model] is Kind.COMPLETION
    )


def _engine_pids(settings: Settings) -> list[int]:
    """The engines' processes and their children, to see whether they really end."""
    try:
        engines = read_engines(connect(settings)).values()
    except ModelserverError:
        return []
    pids = []
    for engine in engines:
        with suppress(psutil.NoSuchProcess):
            head = psutil.Process(engine.pid)
            pids += [each.pid for each in (head, *head.children(recursive=True))]
    return pids


def _lives(pid: int) -> bool:
    """Whether a process runs; an ended one may wait long for this machine's init."""
    with suppress(psutil.NoSuchProcess):
        return not has_ended(psutil.Process(pid))
    return False
