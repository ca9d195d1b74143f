"""What operators want of a submitted run, done at once where nobody holds it."""

from dataclasses import replace

from celery import Celery

from modelserver.errors import ModelserverError
from modelserver.runs.hosting.choosing import find_run_id
from modelserver.runs.hosting.run_lease import LeaseLostError, RunLease
from modelserver.runs.lane import Lane
from modelserver.store import Store
from modelserver.store.runs.hosted import (
    HostedRun,
    RunOrder,
    RunState,
    ended_ids,
    give_run_order,
    open_ids,
    read_hosted,
    resume_hosted,
)


def find_run(store: Store, name: str) -> HostedRun:
    """The run that a name means, with its progress. Raises ModelserverError."""
    with store.reachable():
        ids = [*open_ids(store), *ended_ids(store)]
        found = read_hosted(store, [find_run_id(name, ids)], whole=True)
    if not found:
        raise _gone(name)
    return found[0]


def order_run(app: Celery, store: Store, found: HostedRun, order: RunOrder) -> None:
    """Pause or cancel a run. Its holder does it within a second or two.

    Raises ModelserverError where it has ended.
    """
    run = found.run.id
    with store.reachable():
        state = found.state(store.now())
        if state in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED):
            raise ModelserverError(f"run {run} is {state} already")
        if not give_run_order(store, run, order):
            raise _gone(run)
        is_held = found.is_held(store.now())
    if not is_held:
        take_back(app, store, replace(found, order=order), "operator")


def resume_run(store: Store, found: HostedRun) -> None:
    """Have a run gone on with that was paused or cancelled, or that failed."""
    with store.reachable():
        if found.state(store.now()) == RunState.COMPLETED:
            raise ModelserverError(f"run {found.run.id} is completed")
        if not resume_hosted(store, found):
            raise _gone(found.run.id)


def take_back(app: Celery, store: Store, found: HostedRun, holder: str) -> bool:
    """Take back what a run has left in the queues that nobody holds, as was ordered.

    False where somebody holds it.
    """
    with store.reachable():
        lease = RunLease.take(store, found, holder)
        if lease is None:
            return False
    if found.standing.lane:
        Lane(app, found.standing.lane, weight=found.run.weight).cancel()
    is_cancelled = found.order == RunOrder.CANCEL
    state = RunState.CANCELLED if is_cancelled else RunState.PAUSED
    standing = replace(found.standing, state=state, reason="", again_at=0.0)
    try:
        lease.release(replace(standing, since=lease.now()))
    except LeaseLostError:
        return False
    return True


def _gone(run: str) -> ModelserverError:
    return ModelserverError(f"run {run} is gone; `modelserver batch list` has all")
