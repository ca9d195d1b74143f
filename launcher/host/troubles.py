"""What a launcher fails at on its host: logged once, and told until it is over."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)

#: What is to be done about a fault of the launcher itself.
REPORT_IT = "its log has where; it is tried again, and the others go on"


class HostTroubles:
    """The troubles that stand, by what each is about. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: dict[str, str] = {}

    @property
    def now(self) -> tuple[str, ...]:
        """A sentence for each, with what to do behind a semicolon."""
        with self._lock:
            return tuple(self._standing.values())

    @contextmanager
    def guard(self, about: str, what: str) -> Iterator[None]:
        """Keep a fault in what follows from all that comes after it.

        A fault that stays is logged once, and is over when the same goes through.
        """
        key = f"{about}: {what}"
        try:
            yield
        except Exception as error:
            fault = f"{about}: its launcher fails to {what} ({error!r}); {REPORT_IT}"
            if self.note(key, fault):
                _log.exception("%s: the launcher fails to %s", about, what)
        else:
            if self.end(key):
                _log.info("%s: the launcher can %s again", about, what)

    def note(self, key: str, text: str) -> bool:
        """Have a trouble stand; whether that is news."""
        with self._lock:
            before = self._standing.get(key)
            self._standing[key] = text
        return before != text

    def end(self, key: str) -> bool:
        """Have a trouble stand no longer; whether it stood."""
        with self._lock:
            return self._standing.pop(key, None) is not None

    def about(self, about: str) -> str:
        """What stands about one thing, "" for nothing."""
        with self._lock:
            said = (t for k, t in self._standing.items() if k.startswith(f"{about}:"))
            return next(said, "").removeprefix(f"{about}: ")

    def forget(self, about: str) -> None:
        """End all that ``guard`` has noted about something that is there no longer."""
        with self._lock:
            for key in [
                each for each in self._standing if each.startswith(f"{about}:")
            ]:
                del self._standing[key]
