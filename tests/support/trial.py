"""What a trial stands on: a folder of its own, and what is to end with it."""

import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: Lines of each log that are shown after an error.
TAIL_LINES = 30


class Trial(ABC):
    """A context manager; the logs in its folder are shown if it ends by an error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix=f"modelserver-{self._name}-"))
        self.keep(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self._open()
        except BaseException:
            self._show_logs()
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._show_logs()
        self._stack.close()

    def keep(self, end: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Call this at the end, before whatever was kept earlier."""
        self._stack.callback(end, *arguments, **options)

    @abstractmethod
    def _open(self) -> None:
        """Start what the trial needs; what fails here ends what has begun."""

    def _show_logs(self) -> None:
        for log in sorted(self.folder.rglob("*.log")):
            tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            print(f"--- {log.name}", *tail, sep="\n", file=sys.stderr)
