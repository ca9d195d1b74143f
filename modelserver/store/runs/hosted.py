"""Submitted runs: what is kept of each, who carries it out, what operators want.

Nothing of its prompts is kept here: those stand in its files.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from modelserver.decoding import decode
from modelserver.python310 import StrEnum
from modelserver.store.scripts import hosted as scripts
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each
from modelserver.values import Json

#: Whoever carries out a run renews its lease every second; it ends after this time.
RUN_LEASE_SECONDS = 6.0
#: A process's sign of life ends after this time, in seconds.
HOLDER_SECONDS = 10.0
#: Runs that have ended are kept for so long, in seconds.
ENDED_SECONDS = 30 * 86_400.0
#: Most runs that have ended and are kept.
MOST_ENDED = 1_000


class RunState(StrEnum):
    """How a submitted run stands."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    FAILED = "failed"


#: The states of runs that nobody goes on with by himself.
ENDED = (RunState.CANCELLED, RunState.COMPLETED, RunState.FAILED)


class RunOrder(StrEnum):
    """What operators want of a run."""

    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    """A run as it was submitted."""

    id: str
    #: The input, a whole path.
    source: str
    #: The output, a whole path.
    output: str
    rows: int
    #: What the input is, where its name does not say.
    form: str = ""
    #: The host that it was submitted on.
    host: str = ""
    #: Who submitted it.
    user: str = ""
    #: When, in seconds since the epoch by the server's clock.
    at: float = 0.0
    #: Its share of the fleet, beside a run of weight 1.
    weight: int = 1
    #: Whether the output is put into the order of the input at the end.
    is_sorted: bool = False
    #: Options that do not stand beside its output.
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunStanding:
    """How a run stood when somebody last wrote it."""

    state: str = RunState.WAITING
    #: Why, "" if there is nothing to say.
    reason: str = ""
    #: Since when, in seconds since the epoch by the server's clock.
    since: float = 0.0
    #: It is not gone on with before, by the same clock.
    again_at: float = 0.0
    #: The host of whoever wrote it.
    host: str = ""
    #: What its rows are called in Redis, "" before the first one.
    lane: str = ""


@dataclass(frozen=True, slots=True)
class HostedRun:
    """What is kept of a run."""

    run: SubmittedRun
    standing: RunStanding = RunStanding()
    #: Both as they are stored, with what other versions say.
    submitted: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Any] = field(default_factory=dict)
    #: "" for none.
    order: str = ""
    #: Who carries it out; once the lease is over, who has not ended in order.
    holder: str = ""
    #: When the holder's lease ends, in seconds since the epoch.
    until: float = 0.0
    #: How often it was taken.
    incarnation: int = 0
    #: How far its holder has come, see ``runs.hosting.telling``.
    progress: Mapping[str, Any] = field(default_factory=dict)
    #: The closing report, {} before the end.
    report: Mapping[str, Any] = field(default_factory=dict)

    def is_held(self, now: float) -> bool:
        """Whether somebody carries it out."""
        return self.until > now

    def state(self, now: float) -> str:
        """How it stands, what operators want included."""
        told = self.standing.state
        is_paused, is_cancelled = (self.order == each for each in RunOrder)
        if self.is_held(now):
            if is_cancelled:
                return RunState.CANCELLING
            return RunState.PAUSING if is_paused else RunState.RUNNING
        if told in (RunState.COMPLETED, RunState.FAILED):
            return told
        if is_cancelled:
            return RunState.CANCELLED
        is_full = told == RunState.PAUSED and self.standing.again_at > 0
        return RunState.PAUSED if is_paused or is_full else RunState.WAITING


@dataclass(frozen=True, slots=True)
class HolderReport:
    """A process that carries out submitted runs."""

    name: str
    host: str = ""
    pid: int = 0
    #: The runs that it holds.
    runs: tuple[str, ...] = ()
    #: Runs that it leaves to others, and why.
    unseen: Mapping[str, str] = field(default_factory=dict)


# Reading.

#: What is read of runs to choose from, and what is read beside that to show them.
_FIELDS = ("run", "standing", "order", "holder", "until", "incarnation")
_SHOWN = ("progress", "report")


def read_hosted(
    store: Store, ids: Iterable[str], whole: bool = False
) -> tuple[HostedRun, ...]:
    """These runs, without those that are gone; ``whole`` with progress and report."""
    names = (*_FIELDS, *_SHOWN) if whole else _FIELDS
    ids = list(ids)
    with store.client.pipeline(transaction=False) as pipe:
        for each in ids:
            pipe.hmget(store.keys.hosted_run(each), names)
        found = dict(zip(ids, pipe.execute(), strict=True))
    stored = {
        each: dict(zip(names, values, strict=True))
        for each, values in found.items()
        if values[0]
    }
    return tuple(read_each(store, "run", stored, _decode).values())


def _decode(values: Mapping[str, str | None]) -> HostedRun:
    def read(name: str) -> Any:
        return json.loads(values.get(name) or "{}")

    return HostedRun(
        decode(SubmittedRun, read("run")),
        decode(RunStanding, read("standing")),
        read("run"),
        read("standing"),
        order=values["order"] or "",
        holder=values["holder"] or "",
        until=int(values["until"] or 0) / 1000,
        incarnation=int(values["incarnation"] or 0),
        progress=read("progress"),
        report=read("report"),
    )


def open_ids(store: Store) -> list[str]:
    """The runs that have not ended, the first submitted first."""
    return list(store.run("ZRANGE", store.keys.hosted_open, 0, -1))


def ended_ids(store: Store) -> list[str]:
    """The runs that have ended, the last one first."""
    return list(store.run("ZRANGE", store.keys.hosted_ended, 0, -1, "REV"))


def read_holders(store: Store) -> tuple[HolderReport, ...]:
    """The processes that live, by name."""
    names = sorted(store.run("SMEMBERS", store.keys.holders))
    if not names:
        return ()
    values = store.run("MGET", *[store.keys.holder(name) for name in names])
    if gone := [name for name, value in zip(names, values, strict=True) if not value]:
        store.run("SREM", store.keys.holders, *gone)
    found = {name: value for name, value in zip(names, values, strict=True) if value}
    return tuple(read_each(store, "report of", found, _read_holder).values())


def _read_holder(text: str) -> HolderReport:
    return decode(HolderReport, json.loads(text))


# Submitting and ordering.


def add_hosted(store: Store, run: SubmittedRun) -> bool:
    """Keep a new run; False if one of its id is there."""
    keys = [store.keys.hosted_open, store.keys.hosted_run(run.id)]
    standing = RunStanding(since=run.at)
    values = (run.id, run.at, _json(run), _json(standing))
    return bool(store.run_script(scripts.ADD_HOSTED, keys, *values))


def give_run_order(store: Store, run: str, order: RunOrder) -> bool:
    """Say what operators want of a run; False if it is gone."""
    keys = [store.keys.hosted_run(run)]
    return bool(store.run_script(scripts.ORDER_HOSTED, keys, order))


def resume_hosted(
    store: Store, found: HostedRun, again: SubmittedRun | None = None
) -> bool:
    """Have a run gone on with, whatever it was; False if it is gone.

    ``again`` is how it was submitted once more.
    """
    standing = replace(found.standing, state=RunState.WAITING, reason="", again_at=0.0)
    written = _written(found, replace(standing, since=store.now()))
    run = {**found.submitted, **(asdict(again) if again else {})}
    values = (found.run.id, run["at"], json.dumps(run, default=str), written)
    return bool(store.run_script(scripts.RESUME_HOSTED, _keys(store, found), *values))


def _keys(store: Store, found: HostedRun) -> list[str]:
    keys = store.keys
    return [keys.hosted_run(found.run.id), keys.hosted_open, keys.hosted_ended]


def merged_standing(found: HostedRun, standing: RunStanding) -> dict[str, Any]:
    """A standing as it is stored, with what other versions say of the run."""
    return {**found.stored, **asdict(standing)}


def _written(found: HostedRun, standing: RunStanding) -> str:
    return json.dumps(merged_standing(found, standing))


def _json(value: Any) -> str:
    return json.dumps(asdict(value), default=str)


# What holders write.


def take_hosted(store: Store, run: str, holder: str) -> tuple[int, str]:
    """Take a run; its incarnation, and a holder before that did not end in order.

    The incarnation is 0 if somebody holds it or it is gone.
    """
    milliseconds = int(RUN_LEASE_SECONDS * 1000)
    keys = [store.keys.hosted_run(run)]
    found: Any = store.run_script(scripts.TAKE_HOSTED, keys, holder, milliseconds)
    return int(found[0]), str(found[1])


def renew_hosted(
    store: Store, run: str, incarnation: int, fields: Mapping[str, str]
) -> str | None:
    """Renew a lease and write fields; what operators want, None if it is lost."""
    parts = [part for pair in fields.items() for part in pair]
    values = (incarnation, int(RUN_LEASE_SECONDS * 1000), *parts)
    keys = [store.keys.hosted_run(run)]
    order: Any = store.run_script(scripts.RENEW_HOSTED, keys, *values)
    return None if order == 0 else str(order)


def release_hosted(
    store: Store,
    found: HostedRun,
    incarnation: int,
    standing: RunStanding,
    report: Mapping[str, Any] | None = None,
) -> bool:
    """End a lease and write how the run stands; False if the lease was lost before."""
    ended_at = standing.since if standing.state in ENDED else ""
    fields = ["standing", _written(found, standing)]
    fields += ["report", json.dumps(report)] * (report is not None)
    values = (incarnation, found.run.id, ended_at, *fields)
    script = scripts.RELEASE_HOSTED
    return bool(store.run_script(script, _keys(store, found), *values))


def report_holder(store: Store, report: HolderReport) -> None:
    """Renew a process's sign of life."""
    with store.client.pipeline() as pipe:
        pipe.sadd(store.keys.holders, report.name)
        milliseconds = int(HOLDER_SECONDS * 1000)
        pipe.set(store.keys.holder(report.name), _json(report), px=milliseconds)
        pipe.execute()


def end_holder(store: Store, name: str) -> None:
    """End a process's sign of life at once."""
    with store.client.pipeline() as pipe:
        pipe.srem(store.keys.holders, name)
        pipe.delete(store.keys.holder(name))
        pipe.execute()


def forget_ended(store: Store, now: float) -> int:
    """Forget runs that ended long ago, or are too many; returns how many."""
    ended = store.keys.hosted_ended
    old = store.run("ZRANGE", ended, "-inf", now - ENDED_SECONDS, "BYSCORE")
    beyond = store.run("ZRANGE", ended, 0, -MOST_ENDED - 1)
    gone = {*old, *beyond}
    if gone:
        with store.client.pipeline() as pipe:
            pipe.zrem(ended, *gone)
            pipe.delete(*[store.keys.hosted_run(each) for each in gone])
            pipe.execute()
    return len(gone)
