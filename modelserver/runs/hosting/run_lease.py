"""The right to carry out a run: one process has it, as long as it renews it."""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from modelserver.errors import ModelserverError, StoreUnreachableError
from modelserver.store import Store
from modelserver.store.runs.hosted import (
    HostedRun,
    RunStanding,
    read_hosted,
    release_hosted,
    renew_hosted,
    take_hosted,
)

#: Seconds between two tries where Redis does not answer.
RENEW_AGAIN_SECONDS = 0.5


class LeaseLostError(ModelserverError):
    """Another process carries out the run now; nothing more is written here."""


class RunLease:
    """One process's lease of one run. For several threads."""

    def __init__(
        self, store: Store, found: HostedRun, incarnation: int, before: str = ""
    ) -> None:
        self._store = store
        self.found = found
        self.incarnation = incarnation
        #: A holder before that did not end in order, and may come back; "" for none.
        self.before = before
        self.is_lost = False
        self._is_released = False
        self._lock = threading.Lock()

    @classmethod
    def take(cls, store: Store, found: HostedRun, holder: str) -> "RunLease | None":
        """Take it; None if somebody has it."""
        incarnation, before = take_hosted(store, found.run.id, holder)
        if not incarnation:
            return None
        # Somebody may have written more since it was read.
        now = read_hosted(store, [found.run.id])
        return cls(store, now[0] if now else found, incarnation, before)

    def renew(self, fields: Mapping[str, Any] | None = None) -> str:
        """Renew it; what operators want of the run, "" for nothing.

        ``fields`` are written with it, as JSON. Raises LeaseLostError,
        StoreUnreachableError.
        """
        with self._lock:
            if self._is_released:
                return ""
            written = {name: json.dumps(each) for name, each in (fields or {}).items()}
            with self._store.reachable():
                run, incarnation = self.found.run.id, self.incarnation
                order = renew_hosted(self._store, run, incarnation, written)
        if order is None:
            self.is_lost = True
            raise LeaseLostError(f"run {run} has another holder now, or is gone")
        return order

    def check(self) -> str:
        """The same, however long Redis is silent: nobody else has it meanwhile."""
        while True:
            try:
                return self.renew()
            except StoreUnreachableError:
                time.sleep(RENEW_AGAIN_SECONDS)

    def now(self) -> float:
        """By the server's clock. Raises StoreUnreachableError."""
        with self._store.reachable():
            return self._store.now()

    def release(
        self, standing: RunStanding, report: Mapping[str, Any] | None = None
    ) -> None:
        """End it in order. Raises LeaseLostError, StoreUnreachableError."""
        with self._lock, self._store.reachable():
            found, incarnation = self.found, self.incarnation
            if release_hosted(self._store, found, incarnation, standing, report):
                self._is_released = True
                return
        self.is_lost = True
        raise LeaseLostError(f"run {found.run.id} has another holder now, or is gone")
