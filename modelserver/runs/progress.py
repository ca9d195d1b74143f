"""How far a run is, shown by rich in a terminal and by tqdm in a notebook."""

import sys
from typing import Any, Protocol

#: What IPython calls its shell in a notebook.
_NOTEBOOK_SHELL = "ZMQInteractiveShell"


class ProgressBar(Protocol):
    """What a run tells of itself."""

    def advance(self, done: int, failed: int) -> None:
        """So many more rows are done, of which so many failed."""

    def close(self) -> None:
        """The run has ended."""


class NoBar:
    """Shows nothing."""

    def advance(self, done: int, failed: int) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Shows nothing."""


class TerminalBar:
    """A line at the foot of a terminal."""

    def __init__(self, what: str, total: int | None) -> None:
        # Loaded where it is shown: a program that only sends need not have it.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._failed = 0
        self._task = self._progress.add_task(what, total=total, failed="")
        self._progress.start()

    def advance(self, done: int, failed: int) -> None:
        """So many more rows are done, of which so many failed."""
        self._failed += failed
        told = f"{self._failed} failed" if self._failed else ""
        self._progress.update(self._task, advance=done, failed=told)

    def close(self) -> None:
        """Leave the line as it is."""
        self._progress.stop()


class NotebookBar:
    """tqdm's bar below a cell."""

    def __init__(self, tqdm: Any, what: str, total: int | None) -> None:
        self._bar = tqdm(desc=what, total=total, unit=" rows")
        self._failed = 0

    def advance(self, done: int, failed: int) -> None:
        """So many more rows are done, of which so many failed."""
        self._failed += failed
        if self._failed:
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update(done)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def open_bar(what: str, total: int | None, shown: bool | None) -> ProgressBar:
    """A bar for a run; ``shown`` is None where the place decides.

    By itself it is shown in a terminal, and in a notebook that has tqdm.
    """
    if shown is False:
        return NoBar()
    if tqdm := _notebook_tqdm():
        return NotebookBar(tqdm, what, total)
    if shown or sys.stderr.isatty():
        return TerminalBar(what, total)
    return NoBar()


def _notebook_tqdm() -> Any:
    """tqdm, if this is a notebook and it is installed."""
    ipython = sys.modules.get("IPython")
    if ipython is None or type(ipython.get_ipython()).__name__ != _NOTEBOOK_SHELL:
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm
