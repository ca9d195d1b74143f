"""The process that carries out submitted runs: ``modelserver batches``."""

import logging
import os
import threading
import time
from collections.abc import Iterable

from celery import Celery

from modelserver.errors import ModelserverError, StoreUnreachableError
from modelserver.runs.hosting.choosing import find_left_behind, find_takeable
from modelserver.runs.hosting.held_run import HeldRun, HoldingProcess, Report
from modelserver.runs.hosting.orders import take_back
from modelserver.runs.hosting.run_lease import RunLease
from modelserver.runs.hosting.sight import find_unseen
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.runs.hosted import (
    ENDED,
    HolderReport,
    HostedRun,
    SubmittedRun,
    end_holder,
    forget_ended,
    open_ids,
    read_hosted,
    report_holder,
)

log = logging.getLogger(__name__)

#: Runs are looked for after so many seconds.
RUNS_LOOK_SECONDS = 0.5
#: Leases are renewed after so many seconds.
RENEW_SECONDS = 1.0
#: Most runs that one process carries out at once, each in a thread of its own.
MOST_HELD = 32
#: Files that were not seen are looked for again after so many seconds.
UNSEEN_SECONDS = 3.0
#: Old runs are forgotten after so many seconds.
FORGET_SECONDS = 60.0
#: What a run has to write its last lines when this process ends, in seconds.
LEAVE_SECONDS = 20.0


class Holder:
    """Takes runs that nobody holds, and carries them out side by side."""

    def __init__(self, app: Celery, settings: Settings, report: Report) -> None:
        self._app = app
        self._settings = settings
        self._process = HoldingProcess(app, settings.host, report)
        self._store: Store | None = None
        self._held: dict[str, HeldRun] = {}
        #: By run: why it is left to others, and when it was looked at.
        self._unseen: dict[str, tuple[str, float]] = {}
        self._forget_at = 0.0
        self._is_ending = False
        #: Its name in lists and leases.
        self.name = f"{settings.host}-{os.getpid()}"

    def run(self) -> None:
        """Carry out runs until ``stop``; Redis may come and go meanwhile."""
        log.info("holder=%s is ready", self.name)
        threading.Thread(target=self._renew_all, name="leases", daemon=True).start()
        trouble = ""
        while not self._is_ending:
            try:
                self._look(self._connected())
                trouble = ""
            except ModelserverError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    log.warning("%s", trouble)
            except Exception:
                log.exception("runs could not be looked at")
            time.sleep(RUNS_LOOK_SECONDS)
        self._leave_all()

    def stop(self) -> None:
        """End soon, and leave all runs to others; from a signal's handler too."""
        self._is_ending = True

    def _connected(self) -> Store:
        if self._store is None:
            self._store = connect(self._settings)
        return self._store

    def _look(self, store: Store) -> None:
        self._reap()
        with store.reachable():
            runs, now = read_hosted(store, open_ids(store)), store.now()
        for found in find_left_behind(runs, now):
            take_back(self._app, store, found, self.name)
        self._forget_unseen(runs)
        for found in find_takeable(runs, self._held, now):
            if not self._is_unseen(found.run) and len(self._held) < MOST_HELD:
                self._take(store, found)
        if time.monotonic() > self._forget_at:
            self._forget_at = time.monotonic() + FORGET_SECONDS
            with store.reachable():
                forget_ended(store, now)

    def _take(self, store: Store, found: HostedRun) -> None:
        with store.reachable():
            lease = RunLease.take(store, found, self.name)
        if lease is None:
            return
        if lease.found.standing.state in ENDED:
            lease.release(lease.found.standing)  # It has ended since it was read.
            return
        log.info("run=%s taken file=%s", found.run.id, found.run.source)
        self._held[found.run.id] = HeldRun(self._process, lease)

    def _reap(self) -> None:
        for run, held in list(self._held.items()):
            if held.is_over:
                del self._held[run]
                if held.unseen:
                    self._unseen[run] = (held.unseen, time.monotonic())

    # Runs whose files are elsewhere.

    def _is_unseen(self, run: SubmittedRun) -> bool:
        reason, looked_at = self._unseen.get(run.id, ("", 0.0))
        if not reason or time.monotonic() - looked_at > UNSEEN_SECONDS:
            reason = find_unseen(run, self._settings.host)
            self._unseen[run.id] = (reason, time.monotonic())
        return bool(reason)

    def _forget_unseen(self, runs: Iterable[HostedRun]) -> None:
        known = {each.run.id for each in runs}
        self._unseen = {run: each for run, each in self._unseen.items() if run in known}

    # The thread that keeps the leases.

    def _renew_all(self) -> None:
        while not self._is_ending or self._held:
            time.sleep(RENEW_SECONDS)
            try:
                self._report()
                for held in list(self._held.values()):
                    held.renew()
            except StoreUnreachableError as error:
                log.debug("leases were not renewed: %s", error)
            except Exception:
                log.exception("leases were not renewed")

    def _report(self) -> None:
        if self._store is None or self._is_ending:
            return
        unseen = {run: why for run, (why, _) in list(self._unseen.items()) if why}
        name, host, pid = self.name, self._settings.host, os.getpid()
        runs = tuple(sorted(self._held))
        with self._store.reachable():
            report_holder(self._store, HolderReport(name, host, pid, runs, unseen))

    def _leave_all(self) -> None:
        for held in self._held.values():
            held.leave()
        ends_at = time.monotonic() + LEAVE_SECONDS
        for held in self._held.values():
            held.join(max(0.0, ends_at - time.monotonic()))
        self._held = {}
        if self._store is not None:
            try:
                with self._store.reachable():
                    end_holder(self._store, self.name)
            except StoreUnreachableError as error:
                log.warning("%s", error)
