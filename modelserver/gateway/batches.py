"""OpenAI's batches: runs that the fleet carries out, under OpenAI's names.

What is known of a batch stands in a file; how far it is, its run tells. A gateway that
dies while it looks at an input leaves that to the next one.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from celery import Celery

from modelserver.decoding import decode
from modelserver.errors import BatchFileError, RequestError
from modelserver.gateway.batch_records import HEAD, BatchRecord, new_record
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.files import (
    FileFolder,
    is_id,
    locked,
    read_all,
    read_json,
    write_json,
)
from modelserver.gateway.unanswered import UNANSWERED, write_errors
from modelserver.runs.files.batch_run import BadLinesError, BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths
from modelserver.runs.files.lines import LineBounds
from modelserver.runs.files.source import Source
from modelserver.runs.hosting.submitting import submit_run
from modelserver.runs.hosting.telling import RunView
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.runs.hosted import (
    HostedRun,
    RunOrder,
    RunState,
    give_run_order,
    read_hosted,
)

#: What a line is called whose request an engine would refuse.
OF_ROW = "invalid_request"
#: OpenAI's word for how a run stands.
_STATUS = {
    RunState.CANCELLING: "cancelling",
    RunState.CANCELLED: "cancelled",
    RunState.COMPLETED: "completed",
    RunState.FAILED: "failed",
}
#: Those after which no more comes. Who sees to a run that failed may go on with it.
_ENDED = ("completed", "cancelled", "expired")

logger = logging.getLogger(__name__)


class BatchFolder:
    """The batches of one folder. Blocks: not for a loop."""

    def __init__(self, settings: Settings, app: Celery, files: FileFolder) -> None:
        self._settings = settings
        self._app = app
        self._files = files
        self._connected: Store | None = None

    @property
    def _store(self) -> Store:
        if self._connected is None:
            self._connected = connect(self._settings)
        return self._connected

    # What clients ask for.

    def create(
        self, body: Mapping[str, Any], owner: str, models: tuple[str, ...], least: int
    ) -> BatchRecord:
        """A new batch, to be looked at by ``validate``. Raises RequestError."""
        record = new_record(body, int(time.time()), owner, models, least)
        if self._files.find(record.input_file_id, owner) is None:
            name = body.get("input_file_id")
            raise RequestError(
                f"input_file_id names no file of yours: {name!r}; upload one to "
                "/v1/files"
            )
        self._write(record)
        self._keep_input(record)
        return record

    def find(self, batch: str, owner: str) -> BatchRecord | None:
        """One batch of this owner."""
        if not is_id(batch, HEAD):
            return None
        found = read_json(self._path(batch, ".json"))
        record = decode(BatchRecord, found) if found else None
        return record if record and record.owner == owner else None

    def all(self, owner: str) -> list[BatchRecord]:
        """All batches of this owner, the newest first."""
        own = [record for record in self._records() if record.owner == owner]
        return sorted(own, key=lambda record: (-record.created_at, record.id))

    def _records(self) -> Iterator[BatchRecord]:
        for values in read_all(self._files.folder, HEAD):
            yield decode(BatchRecord, values)

    def cancel(self, record: BatchRecord) -> BatchRecord:
        """End a batch; what is answered stays.

        Raises Refused where it is over, StoreUnreachableError.
        """
        status, _ = self._status(record, self._run(record))
        if status in ("completed", "failed", "expired", "finalizing"):
            text = f"the batch {record.id} is {status}; there is nothing to cancel"
            raise Refused(Fault(409, text))
        if not record.cancelled_at:
            record = self._change(record.id, cancelled_at=int(time.time()))
        self._call_off(record)
        return record

    def _call_off(self, record: BatchRecord) -> None:
        """Have a batch's run cancelled, if there is one by now."""
        if record.run:
            with self._store.reachable():
                give_run_order(self._store, record.run, RunOrder.CANCEL)

    # What gateways do by themselves.

    def look_after(self) -> None:
        """Take up what a gateway left, and end what is out of time."""
        for record in self._records():
            try:
                self._look_after(record)
            except (BatchFileError, OSError) as error:
                # Others need not wait for what one of them lacks.
                logger.warning("the batch %s waits: %s", record.id, error)

    def _look_after(self, record: BatchRecord) -> None:
        if record.failed_at or record.ended:
            return
        if not record.run:
            self.validate(record.id)
            return
        found = self._run(record)
        if self._outcome(record, found)[0] in _ENDED:
            self.finish(record.id)
        elif found is not None and not record.is_expired:
            self._expire(record, found)

    def _expire(self, record: BatchRecord, found: HostedRun) -> None:
        is_over = found.state(self._store.now()) in _STATUS
        if time.time() > record.expires_at and not is_over:
            self._call_off(self._change(record.id, is_expired=True))

    def finish(self, batch: str) -> None:
        """Tell what a batch that has ended did not come to, unless somebody does.

        Raises OSError, BatchFileError, StoreUnreachableError.
        """
        with locked(self._path(batch, ".lock")) as is_ours:
            record = decode(BatchRecord, read_json(self._path(batch, ".json")))
            found = self._run(record) if is_ours and record.run else None
            ended, at = self._outcome(record, found)
            if not is_ours or not record.run or record.ended or ended not in _ENDED:
                return
            whole = self._whole_errors(record)
            if ended in UNANSWERED and found is not None and not whole.exists():
                kept = self._keep_input(record)
                source = kept if kept.exists() else None
                write_errors(whole, source, self._paths(record), ended)
            self._input(record).unlink(missing_ok=True)
            self._change(batch, ended=ended, ended_at=at)

    def validate(self, batch: str) -> None:
        """Look at a batch's input and hand it to the fleet, unless somebody does."""
        with locked(self._path(batch, ".lock")) as is_ours:
            record = decode(BatchRecord, read_json(self._path(batch, ".json")))
            if not is_ours or record.run or record.failed_at:
                return
            now = int(time.time())
            if record.cancelled_at:
                self._input(record).unlink(missing_ok=True)
                self._change(record.id, failed_at=now)
                return
            try:
                run = self._submit(record)
            except BadLinesError as error:
                errors = [problem.to_json() for problem in error.found.problems]
                self._fail(record, errors)
            except (BatchFileError, RequestError, OSError) as error:
                # Where it lies is nobody's business outside.
                text = str(error).replace(f"{self._files.folder}/", "")
                told = {"code": "invalid_file", "line": None, "message": text}
                self._fail(record, [told])
            else:
                record = self._change(record.id, run=run, submitted_at=now)
                if record.cancelled_at:
                    self._call_off(record)

    def _fail(self, record: BatchRecord, errors: list[dict[str, Any]]) -> None:
        told = tuple({"param": None, **each} for each in errors)
        self._input(record).unlink(missing_ok=True)
        self._change(record.id, failed_at=int(time.time()), errors=told)

    def _submit(self, record: BatchRecord) -> str:
        kept = self._keep_input(record)
        if not kept.exists():
            raise RequestError(f"the file {record.input_file_id} is not there any more")
        source = Source(kept, f"{record.input_file_id}.jsonl")
        try:
            return self._submit_file(record, source)
        except BadLinesError as error:
            if any(each.code != OF_ROW for each in error.found.problems):
                raise
            # What an engine would refuse fails its row only, as with OpenAI.
            return self._submit_file(record, source, skip_bad=True)

    def _submit_file(
        self, record: BatchRecord, source: Source, skip_bad: bool = False
    ) -> str:
        options = BatchOptions(
            priority=record.priority,
            skip_bad=skip_bad,
            api_key=record.owner,
            bounds=LineBounds(record.endpoint, record.models, are_bounded=True),
        )
        job = BatchRun(self._app, source, self._paths(record), options)
        try:
            job.prepare()
            submitter = (self._settings.host, record.owner)
            return submit_run(self._store, job, submitter).id
        finally:
            job.close()

    def _keep_input(self, record: BatchRecord) -> Path:
        """The input, under a name of the batch's own, where it is there.

        So it stays for as long as the batch needs it, also where its file is removed.
        """
        kept = self._input(record)
        upload = self._files.find(record.input_file_id, record.owner)
        if upload is None or kept.exists():
            return kept
        content = self._files.content(upload)
        try:
            os.link(content, kept)
        except OSError:
            return content  # Somebody was quicker, or the disk knows no links.
        return kept

    # How it stands.

    def describe(self, record: BatchRecord) -> dict[str, Any]:
        """OpenAI's object about a batch. Raises StoreUnreachableError."""
        found = self._run(record)
        status, at = self._status(record, found)
        counts, usage = {"total": 0, "completed": 0, "failed": 0}, None
        if found is not None:
            tally = RunView(found).tally
            counts = {
                "total": tally.total,
                "completed": tally.answered,
                "failed": tally.failed,
            }
            usage = {
                "input_tokens": tally.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": tally.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tally.prompt_tokens + tally.completion_tokens,
            }
        is_over = status in _ENDED
        paths, answers, errors = self._paths(record), None, None
        if is_over:
            answers = self._left(record, "output", paths.output)
            whole = self._whole_errors(record)
            path = whole if status in UNANSWERED else paths.errors
            errors = self._left(record, "errors", path)
        told = {"object": "list", "data": list(record.errors)}
        return {
            "id": record.id,
            "object": "batch",
            "endpoint": record.endpoint,
            "errors": told if record.errors else None,
            "input_file_id": record.input_file_id,
            "completion_window": record.completion_window,
            "status": status,
            "output_file_id": answers,
            "error_file_id": errors,
            "created_at": record.created_at,
            "in_progress_at": record.submitted_at or None,
            "expires_at": record.expires_at,
            "finalizing_at": at if status in ("finalizing", "completed") else None,
            "completed_at": at if status == "completed" else None,
            "failed_at": at if status == "failed" else None,
            "expired_at": at if status == "expired" else None,
            "cancelling_at": record.cancelled_at or None,
            "cancelled_at": at if status == "cancelled" else None,
            "request_counts": counts,
            "usage": usage,
            "metadata": dict(record.metadata) or None,
        }

    def _run(self, record: BatchRecord) -> HostedRun | None:
        if not record.run:
            return None
        with self._store.reachable():
            found = read_hosted(self._store, [record.run], whole=True)
        return found[0] if found else None

    def _status(
        self, record: BatchRecord, found: HostedRun | None
    ) -> tuple[str, int | None]:
        """OpenAI's word for how it stands, and since when."""
        if record.ended:
            return record.ended, record.ended_at
        status, at = self._outcome(record, found)
        if record.run and status in UNANSWERED:
            # What it did not come to is still written down.
            return "finalizing" if status == "expired" else "cancelling", at
        return status, at

    def _outcome(
        self, record: BatchRecord, found: HostedRun | None
    ) -> tuple[str, int | None]:
        """How it stands by its run alone."""
        if record.failed_at:
            ended = "cancelled" if record.cancelled_at else "failed"
            return ended, record.failed_at
        if found is None:
            # Its run is kept for thirty days after its end.
            if record.run:
                return "expired", None
            return ("cancelling" if record.cancelled_at else "validating"), None
        status = _STATUS.get(RunState(found.state(self._store.now())), "in_progress")
        if record.is_expired and status in ("cancelling", "cancelled"):
            status = "expired" if status == "cancelled" else "in_progress"
        return status, int(found.standing.since)

    def _paths(self, record: BatchRecord) -> BatchPaths:
        return BatchPaths(self._path(record.id, ".out.jsonl"))

    def _input(self, record: BatchRecord) -> Path:
        return self._path(record.id, ".in.jsonl")

    def _whole_errors(self, record: BatchRecord) -> Path:
        """The errors of one that was ended early, with what it did not come to."""
        return self._path(record.id, ".errors.jsonl")

    def _left(self, record: BatchRecord, kind: str, path: Path) -> str | None:
        if not path.exists() or not path.stat().st_size:
            return None
        return self._files.adopt(record.id, kind, path, record.owner).id

    def _path(self, batch: str, suffix: str) -> Path:
        return self._files.folder / f"{batch}{suffix}"

    def _change(self, batch: str, **changes: Any) -> BatchRecord:
        """Change what is known of a batch, of which others may change other things."""
        with locked(self._path(batch, ".change"), waits=True):
            found = decode(BatchRecord, read_json(self._path(batch, ".json")))
            record = replace(found, **changes)
            self._write(record)
            return record

    def _write(self, record: BatchRecord) -> None:
        write_json(self._path(record.id, ".json"), asdict(record))
