"""Whether the files that engines need are on this host, by disks that may not answer.

What is not there may still come: a disk that is mounted late, an installation that is
under way. So its absence is no end, and it is looked for again.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from launcher.engine_types.base import interpreter
from launcher.environments import RECIPES
from modelserver.errors import EngineEnvironmentError
from modelserver.missing_files import describe_missing, files_named
from modelserver.values import ModelSpec

#: Seconds that a disk may take to say whether a file is there.
LOOK_SECONDS = 10.0


class NeededFiles:
    """Looks for files in threads of its own, one for each model: they may hang."""

    def __init__(self, home: Path, look_seconds: float = LOOK_SECONDS) -> None:
        self._home = home
        self._seconds = look_seconds
        self._looks: dict[str, _Look] = {}

    async def find_missing(self, model: ModelSpec) -> str:
        """What an engine of a model needs and does not find here, "" for nothing."""
        return await self.look(model.name, lambda: find_missing(model, self._home))

    async def look(self, name: str, find: Callable[[], str]) -> str:
        """What ``find`` finds, or that it takes too long; then it goes on.

        As long as it does, nothing else is looked for under that name.
        """
        running = self._looks.get(name)
        if running is None:
            running = self._looks[name] = _Look(find)
        if not await running.is_over(self._seconds):
            since = f"{running.seconds():.0f} s"
            return f"a disk with its files does not answer for {since}"
        self._looks.pop(name, None)
        return running.result()


class _Look:
    """One look, in a thread that nobody has to wait for."""

    def __init__(self, find: Callable[[], str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._found: asyncio.Future[str] = self._loop.create_future()
        threading.Thread(target=self._run, args=(find,), daemon=True).start()

    def _run(self, find: Callable[[], str]) -> None:
        try:
            tell = partial(self._found.set_result, find())
        except OSError as error:
            tell = partial(self._found.set_result, str(error))
        except Exception as error:
            tell = partial(self._found.set_exception, error)  # Whoever waits has it.
        with suppress(RuntimeError):  # The loop has ended.
            self._loop.call_soon_threadsafe(tell)

    async def is_over(self, seconds: float) -> bool:
        """Whether it is over now or within these seconds."""
        await asyncio.wait([self._found], timeout=seconds)
        return self._found.done()

    def result(self) -> str:
        """What was found, once it is over. Raises what the look has raised."""
        return self._found.result()

    def seconds(self) -> float:
        """How long it has taken so far."""
        return self._loop.time() - self._began


def find_missing(model: ModelSpec, home: Path) -> str:
    """The same for once; it may take as long as a disk does."""
    for key, path in files_named(model):
        if missing := describe_missing(path):
            return (
                f"{key} {missing}; it is looked for again, as its disk may be mounted "
                f'late; else correct {key} of model "{model.name}" in the fleet file'
            )
    if model.engine in RECIPES and not (model.interpreter or model.image):
        try:
            interpreter(model, home)
        except EngineEnvironmentError as error:
            return str(error) if error.may_come else ""
    return ""
