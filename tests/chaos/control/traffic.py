"""Requests all the time, at a rate and of a make that can change meanwhile."""

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelserver.errors import ModelserverError
from tests.chaos.load import Load

#: How long engines that are well are watched, in seconds, unless WATCH_SECONDS in the
#: environment says otherwise.
WATCH_SECONDS = 600.0
#: How often a wandering load changes, in seconds.
CHANGE_SECONDS = 15.0
#: A server that is away is tried again after this time, in seconds.
REFUSED_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Mix:
    """So many requests a second, of so many words and tokens: least and most."""

    rate: float
    words: tuple[int, int] = (10, 60)
    tokens: tuple[int, int] = (8, 40)


def wandering(rates: Sequence[float]) -> Iterator[Mix]:
    """Mixes at these rates, each for a while: short and long prompts and answers."""
    draw = random.Random(7)
    until = time.monotonic() + float(os.environ.get("WATCH_SECONDS", WATCH_SECONDS))
    while time.monotonic() < until:
        words = draw.choice(((5, 20), (10, 60), (100, 600)))
        yield Mix(draw.choice(rates), words, draw.choice(((8, 40), (4, 12), (20, 60))))
        time.sleep(CHANGE_SECONDS)


class Traffic:
    """A thread that sends; gaps between requests are exponential."""

    def __init__(self, load: Load, mix: Mix, seed: int = 1) -> None:
        self.mix = mix
        self._load = load
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            due += self._random.expovariate(self.mix.rate)
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            try:
                self._ask()
            except ModelserverError:
                # Refused, so not sent; what is due by now is not made up for.
                self._over.wait(REFUSED_SECONDS)
                due = time.monotonic()

    def _ask(self) -> None:
        words = self._random.randint(*self.mix.words)
        text = "".join(f" word{self._random.randrange(1000)}" for _ in range(words))
        self._load.ask(text, max_tokens=self._random.randint(*self.mix.tokens))
