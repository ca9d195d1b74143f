"""One submitted run that this process carries out, in a thread of its own."""

import errno
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from celery import Celery

from modelserver.errors import (
    BatchFileError,
    ModelserverError,
    StoreFullError,
    StoreUnreachableError,
)
from modelserver.runs.feeder import RowLane
from modelserver.runs.files.batch_run import BatchRun
from modelserver.runs.files.journal import BatchPaths
from modelserver.runs.files.output import detach, is_written
from modelserver.runs.files.problems import OutputBusyError
from modelserver.runs.files.source import Source
from modelserver.runs.hosting.quota_lane import QuotaLane
from modelserver.runs.hosting.run_lease import LeaseLostError, RunLease
from modelserver.runs.hosting.sight import UNSEEN_ERRORS, has_room
from modelserver.runs.hosting.submitting import read_options
from modelserver.runs.hosting.telling import tell
from modelserver.runs.lane import Lane
from modelserver.store import connect
from modelserver.store.runs.hosted import (
    ENDED,
    RunOrder,
    RunStanding,
    RunState,
    merged_standing,
)

log = logging.getLogger(__name__)

#: What a run's progress is made anew after, in seconds.
TOLD_SECONDS = 0.5
#: A full disk is looked at again after so many seconds.
FULL_SECONDS = 5.0
#: An output that another program writes is looked at again after so many seconds.
BUSY_SECONDS = 5.0
#: What Redis kept from going on is tried again after so many seconds.
STORE_SECONDS = 5.0
#: What a disk says that is full.
FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)

#: Makes the closing report of a run that took so many seconds.
Report = Callable[[BatchRun, float], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HoldingProcess:
    """What the runs of one process share."""

    app: Celery
    #: This host's name.
    host: str
    report: Report


class HeldRun:
    """Carries out a run as long as its lease holds."""

    def __init__(self, process: HoldingProcess, lease: RunLease) -> None:
        self._process = process
        self._lease = lease
        self.run = lease.found.run
        self._paths = BatchPaths(Path(self.run.output))
        #: What its rows are called in Redis.
        self._lane = lease.found.standing.lane
        self._job: BatchRun | None = None
        #: What operators want, as it was read last.
        self._order = ""
        self._is_leaving = False
        self._progress: Mapping[str, Any] | None = None
        self._told_at = 0.0
        #: Why it was given back because of its files, "" where it was not.
        self.unseen = ""
        name = f"run {self.run.id}"
        self._thread = threading.Thread(target=self._carry_out, name=name, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done here."""
        return not self._thread.is_alive()

    def renew(self) -> None:
        """Renew the lease, tell how far it is, heed what operators want."""
        told, self._progress = self._progress, None
        try:
            self._heed(self._lease.renew({} if told is None else {"progress": told}))
        except LeaseLostError:
            self._abandon()

    def leave(self) -> None:
        """Leave it to others soon; what is under way stays so."""
        self._is_leaving = True
        self._abandon()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def _heed(self, order: str) -> None:
        self._order = order
        if order and self._job is not None:
            self._job.stop()

    def _abandon(self) -> None:
        if self._job is not None:
            self._job.takes_back = False
            self._job.stop()

    # In its thread.

    def _carry_out(self) -> None:
        run = self.run.id
        try:
            standing, report = self._outcome()
            log.info("run=%s %s %s", run, standing.state, standing.reason)
            self._lease.release(standing, report)
        except LeaseLostError as error:
            log.warning("run=%s left: %s", run, error)
        except (StoreUnreachableError, StoreFullError) as error:
            log.warning("run=%s left until Redis is well: %s", run, error)
            self._give_back(RunState.WAITING, str(error), STORE_SECONDS)
        except Exception:
            log.exception("run=%s failed", run)
            reason = "an error of modelserver's own; see the log of its holder"
            self._give_back(RunState.FAILED, f"{reason} on {self._process.host}")

    def _give_back(self, *standing: Any) -> None:
        try:
            self._lease.release(self._standing(*standing))
        except ModelserverError as error:
            log.warning("run=%s left: %s", self.run.id, error)

    def _outcome(self) -> tuple[RunStanding, dict[str, Any] | None]:
        """What became of it here, and its closing report if it is over."""
        before = self._lease.found.standing
        if before.again_at and not has_room(self._paths.output):
            return self._no_room(), None
        began, job = time.monotonic(), None
        try:
            self._detach()
            self._job = job = self._open()
            job.prepare()
            self._run(job)
            standing = self._ended(job)
            is_over = standing.state in ENDED
            spent = time.monotonic() - began
            return standing, self._process.report(job, spent) if is_over else None
        except BatchFileError as error:
            self._lease.check()
            return self._refused(error), None
        finally:
            if job is not None:
                job.close()

    def _detach(self) -> None:
        """Fence a holder that did not end in order, and may come back."""
        if not self._lease.before:
            return
        host = self._lease.found.standing.host
        is_elsewhere = host not in ("", self._process.host)
        for path in (self._paths.output, self._paths.errors):
            if is_elsewhere or is_written(path):
                detach(path)

    def _open(self) -> BatchRun:
        source = Source(Path(self.run.source), form=self.run.form)
        options = read_options(self.run, self._paths)
        job = BatchRun(self._process.app, source, self._paths, options)
        job.check_holder = self._check_holder
        return job

    def _check_holder(self) -> None:
        try:
            self._lease.check()
        except LeaseLostError:
            self._abandon()
            raise

    def _run(self, job: BatchRun) -> None:
        lane_name = self._lane = job.journal.lane
        standing = self._standing(RunState.RUNNING)
        told = merged_standing(self._lease.found, standing)
        self._heed(self._lease.renew({"standing": told}))
        if self._is_leaving:
            self._abandon()
        priority, weight = job.options.priority, self.run.weight
        app, key = self._process.app, job.options.api_key
        lane: RowLane = Lane(app, lane_name, priority=priority, weight=weight)
        if key:
            settings = app.modelserver_tasks[0].settings
            lane = QuotaLane(lambda: connect(settings), lane, key)
        job.run(self._watch, lane)
        if self.run.is_sorted and not job.tally.left:
            job.sort()
        self._progress = None
        self._order = self._lease.renew({"progress": tell(job)})

    def _watch(self) -> None:
        job = self._job
        assert job is not None
        if self._lease.is_lost:
            raise LeaseLostError(f"run {self.run.id} has another holder now")
        if time.monotonic() - self._told_at > TOLD_SECONDS:
            self._told_at = time.monotonic()
            self._progress = tell(job)

    # How it stands then.

    def _ended(self, job: BatchRun) -> RunStanding:
        if not job.tally.left:
            return self._standing(RunState.COMPLETED)
        if self._order == RunOrder.CANCEL:
            return self._standing(RunState.CANCELLED)
        if self._order == RunOrder.PAUSE:
            return self._standing(RunState.PAUSED)
        return self._standing(RunState.WAITING)

    def _refused(self, error: BatchFileError) -> RunStanding:
        if error.errno in FULL_ERRORS:
            return self._no_room()
        if isinstance(error, OutputBusyError):
            return self._standing(RunState.WAITING, str(error), BUSY_SECONDS)
        is_begun = self._job is not None and self._job.feeder is not None
        if error.errno in UNSEEN_ERRORS and not is_begun:
            self.unseen = f"{self._process.host}: {error}"
            return self._standing(RunState.WAITING)
        return self._standing(RunState.FAILED, str(error))

    def _no_room(self) -> RunStanding:
        reason = f"no space left on {self._paths.output.parent}"
        return self._standing(RunState.PAUSED, reason, FULL_SECONDS)

    def _standing(
        self, state: str, reason: str = "", again_seconds: float = 0.0
    ) -> RunStanding:
        now = self._lease.now()
        return replace(
            self._lease.found.standing,
            state=state,
            reason=reason,
            since=now,
            again_at=now + again_seconds if again_seconds else 0.0,
            host=self._process.host,
            lane=self._lane,
        )
