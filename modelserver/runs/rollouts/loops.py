"""An event loop in a thread of its own, for callers that have none, or are in one."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for a caller that waits for them."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def call(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Its result. Raises TimeoutError after so many seconds."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def stop(self, seconds: float) -> None:
        """End the loop and the thread; one that does not end is left behind."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)
