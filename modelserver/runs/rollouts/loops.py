"""An event loop in a thread of its own, for callers that have none, or are in one."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for a caller that waits for them."""

    def __init__(self, name: str) -> None:
        self._is_up = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._main(),), name=name, daemon=True
        )
        self._thread.start()
        self._is_up.wait()

    async def _main(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._is_up.set()
        await self._over.wait()

    def call(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Its result. Raises TimeoutError after so many seconds."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def end(self, work: Coroutine[Any, Any, object] | None, seconds: float) -> None:
        """Await this as the last thing; one that does not end is left behind."""
        if threading.current_thread() is self._thread:
            # A generator that was forgotten is collected wherever it happens to be.
            last = self._loop.create_task(work or asyncio.sleep(0))
            last.add_done_callback(lambda _: self._over.set())
            return
        if work is not None:
            self.call(work)
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(seconds)
