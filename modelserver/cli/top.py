"""``modelserver top``: the fleet live in the terminal."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
from rich.console import Console
from rich.live import Live

from modelserver.cli.output import console
from modelserver.cli.top_frame import draw_frame
from modelserver.errors import StoreUnreachableError
from modelserver.page.reading import FleetReader, FleetReading
from modelserver.settings import Settings, load
from modelserver.store import Store, connect

#: The fleet is read and drawn anew after so many seconds.
LOOK_SECONDS = 1.0
#: Keys and signals are looked for so often, in seconds.
GLANCE_SECONDS = 0.1


@click.command()
@click.option("--once", is_flag=True, help="Print one frame with every row, and end.")
def top(once: bool) -> None:
    """Show models, engines, GPUs, runs and alerts live; q or Ctrl-C ends it.

    Trouble stands first: models without a ready engine, engines that do not serve or
    are slow, GPUs with faults. Without a terminal it prints one frame.
    """
    looks, screen = _Looks(load()), console()
    if once or not screen.is_terminal:
        screen.print(draw_frame(looks.read(), screen.width))
        return
    end = _End()
    end.listen()
    with suppress(KeyboardInterrupt), _keys_at_once():
        _show(looks, screen, end)


class _Looks:
    """Reads the fleet again and again, also from an embedded server that has moved."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = FleetReader(settings)
        self._store: Store | None = None

    def read(self) -> FleetReading:
        """The fleet as it is now. Raises StoreUnreachableError."""
        self._store = self._store or connect(self._settings)
        try:
            return self._reader.read(self._store)
        except StoreUnreachableError:
            self._store = None
            raise


def _show(looks: _Looks, screen: Console, end: "_End") -> None:
    """Draw frame after frame until somebody ends it."""
    view, trouble = looks.read(), ""
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        while True:
            frame = draw_frame(view, screen.width, screen.height, trouble)
            live.update(frame, refresh=True)
            if end.came_within(LOOK_SECONDS):
                return
            try:
                view, trouble = looks.read(), ""
            except StoreUnreachableError as error:
                trouble = str(error)


class _End:
    """Whether somebody wants it to end: q, Ctrl-C, SIGTERM, or a terminal that went."""

    def __init__(self) -> None:
        self._is_asked = False
        self._has_keys = sys.stdin.isatty()

    def listen(self) -> None:
        """Take signals from now on; a second one does not wait for Redis."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        if self._is_asked:
            raise KeyboardInterrupt
        self._is_asked = True

    def came_within(self, seconds: float) -> bool:
        """Wait so long at most; whether it is to end."""
        until = time.monotonic() + seconds
        while not self._is_asked and (left := until - time.monotonic()) > 0:
            self._wait(min(left, GLANCE_SECONDS))
        return self._is_asked

    def _wait(self, seconds: float) -> None:
        if not self._has_keys:
            time.sleep(seconds)
        elif select.select([sys.stdin], [], [], seconds)[0]:
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed or b"q" in pressed.lower():
                self._is_asked = True


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Keys are told as they are pressed, and not shown."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
