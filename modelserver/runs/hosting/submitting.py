"""From a file to a run that is waiting for a process to carry it out."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from modelserver.decoding import decode
from modelserver.errors import BatchFileError
from modelserver.runs.files.batch_run import BatchOptions, BatchRun
from modelserver.runs.files.journal import BatchPaths, Journal
from modelserver.store import Store
from modelserver.store.runs.hosted import (
    HostedRun,
    SubmittedRun,
    add_hosted,
    read_hosted,
    resume_hosted,
)
from modelserver.values import Json

#: Options that stand in the journal, beside the output; prompts are among them.
IN_JOURNAL = ("model", "prompt", "is_chat", "parameters")


def read_options(run: SubmittedRun, paths: BatchPaths) -> BatchOptions:
    """The options that a run was submitted with."""
    journal = Journal.read(paths.journal)
    if journal is None or journal.run != run.id:
        raise BatchFileError(f"{paths.journal} of run {run.id} is not there any more")
    kept: Mapping[str, Any] = journal.options
    return replace(
        decode(BatchOptions, run.options),
        model=kept.get("model", ""),
        prompt=kept.get("prompt"),
        is_chat=kept.get("chat", False),
        parameters=kept.get("parameters", {}),
    )


def kept_options(options: BatchOptions) -> dict[str, Json]:
    """The options that are kept in the store."""
    names = [each.name for each in fields(options) if each.name not in IN_JOURNAL]
    return {name: getattr(options, name) for name in names}


def find_submitted(store: Store, paths: BatchPaths) -> HostedRun | None:
    """The run that this output belongs to, if it was submitted."""
    journal = Journal.read(paths.journal)
    if journal is None:
        return None
    with store.reachable():
        found = read_hosted(store, [journal.run], whole=True)
    return found[0] if found else None


def submit_run(
    store: Store,
    job: BatchRun,
    submitter: tuple[str, str],
    weight: int = 1,
    is_sorted: bool = False,
) -> SubmittedRun:
    """Keep a run that was prepared, to be carried out by whoever takes it.

    ``submitter`` is a host and a user. A run that has ended before is gone on with.
    Raises StoreUnreachableError.
    """
    host, user = submitter
    run = SubmittedRun(
        id=job.journal.run,
        source=str(absolute(job.source.path)),
        output=str(absolute(job.paths.output)),
        rows=job.journal.rows,
        form=job.source.form,
        host=host,
        user=user,
        at=store.now(),
        weight=weight,
        is_sorted=is_sorted,
        options=kept_options(job.options),
    )
    with store.reachable():
        if not add_hosted(store, run):
            (found,) = read_hosted(store, [run.id])
            resume_hosted(store, found, run)
    return run


def absolute(path: Path) -> Path:
    """The path as other processes may open it."""
    return path.expanduser().absolute()
