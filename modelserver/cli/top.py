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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), _keys_at_once():
        _show(looks, screen)


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


def _show(looks: _Looks, screen: Console) -> None:
    """Draw frame after frame until somebody ends it."""
    view, trouble = looks.read(), ""
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        while True:
            frame = draw_frame(view, screen.width, screen.height, trouble)
            live.update(frame, refresh=True)
            if _is_ended():
                return
            try:
                view, trouble = looks.read(), ""
            except StoreUnreachableError as error:
                trouble = str(error)


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


def _is_ended() -> bool:
    """Wait until the next look; whether q was pressed, or the terminal has gone."""
    if not sys.stdin.isatty():
        time.sleep(LOOK_SECONDS)
        return False
    until = time.monotonic() + LOOK_SECONDS
    while (left := until - time.monotonic()) > 0:
        if not select.select([sys.stdin], [], [], left)[0]:
            break
        pressed = os.read(sys.stdin.fileno(), 64)
        if not pressed or b"q" in pressed.lower():
            return True
    return False
