"""What people are told of: troubles that stand for a while, until they are over. Pure.

A trouble is told once it has stood for the time of its kind, again once it has grown
to twice its size, and when it is over. One that comes and goes all the time is told
three times; then it stands until it has stayed away for a while.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from modelserver.inventory import Host, gib
from modelserver.python310 import StrEnum
from modelserver.values import EngineReport, EngineState, split_engine_id

if TYPE_CHECKING:
    # doctor only needs to know what a trouble is.
    from modelserver.policy.snapshot import Snapshot

#: Engines that a text names; it counts the others.
NAMED = 3
#: A trouble that was told so often, an hour apart at most, comes and goes ...
FLAPS = 3
#: ... so that its end is told only once it has been away for 300 seconds.
CALM_SECONDS = 300.0
#: Seconds for which a trouble that is over is remembered.
REMEMBERED_SECONDS = 3600.0
#: A host's clock is wrong when it differs so much from Redis' clock, in seconds.
CLOCK_SECONDS = 2.0


class TroubleKind(StrEnum):
    """What is wrong."""

    #: A model has nothing left that could answer.
    DOWN = "down"
    #: Engines of a model will not heal by being started again.
    FATAL = "fatal"
    #: Engines of a model die again and again.
    BROKEN = "broken"
    #: Engines of a model have no place.
    PLACE = "place"
    #: A host has stopped reporting.
    HOST = "host"
    #: Engines of a host serve and get no requests, for want of a worker.
    WORKER = "worker"
    #: GPUs of a host are faulty.
    GPU = "gpu"
    #: A disk of a host is nearly full.
    DISK = "disk"
    #: The clock of a host is wrong.
    CLOCK = "clock"
    #: A host's launcher fails at a part of its work.
    LAUNCHER = "launcher"
    #: Requests were set aside.
    DEAD = "dead"
    #: The memory of Redis is short.
    MEMORY = "memory"
    #: Redis cannot save its data.
    PERSISTENCE = "persistence"
    #: Submitted runs wait, and nothing carries them out.
    BATCHES = "batches"
    #: Control does not look at the fleet. Launchers tell it.
    CONTROL = "control"
    #: Redis does not answer a launcher, which tells it.
    REDIS = "redis"

    @property
    def patience_seconds(self) -> float:
        """For how long it stands before people are told."""
        return _PATIENCE_SECONDS.get(self, 0.0)


_PATIENCE_SECONDS = {
    # Engines that wait or die often get their place, or heal, within this time.
    TroubleKind.BROKEN: 300.0,
    TroubleKind.PLACE: 300.0,
    # A launcher that is upgraded is back sooner.
    TroubleKind.HOST: 30.0,
    # A worker that is restarted finishes its requests first.
    TroubleKind.WORKER: 40.0,
    TroubleKind.CONTROL: 30.0,
    TroubleKind.REDIS: 30.0,
    # One reading may be wrong.
    TroubleKind.GPU: 5.0,
    TroubleKind.DISK: 5.0,
    TroubleKind.CLOCK: 10.0,
    # The next try may go through.
    TroubleKind.LAUNCHER: 10.0,
}
_OVER = {
    TroubleKind.DOWN: "{} is back, or no longer part of the fleet",
    TroubleKind.FATAL: "no engine of {} is FATAL any more",
    TroubleKind.BROKEN: "no engine of {} dies again and again any more",
    TroubleKind.PLACE: "every engine of {} has a place, or is wanted no longer",
    TroubleKind.HOST: "host {} reports again, or was given up",
    TroubleKind.WORKER: "host {} has a worker again, or no engine that serves",
    TroubleKind.GPU: "no GPU of host {} is faulty any more",
    TroubleKind.DISK: "host {} has room on its disks again",
    TroubleKind.CLOCK: "the clock of host {} is right again",
    TroubleKind.LAUNCHER: "the launcher of host {} does all of its work again",
    TroubleKind.DEAD: "no request is set aside any more",
    TroubleKind.MEMORY: "the memory of Redis is no longer short",
    TroubleKind.PERSISTENCE: "Redis saves its data again",
    TroubleKind.BATCHES: "a process `modelserver batches` runs again, or no run waits",
    TroubleKind.CONTROL: "control looks at the fleet again",
    TroubleKind.REDIS: "Redis answers again",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong now."""

    kind: TroubleKind
    #: A model, a host, or a part of the fleet.
    about: str
    text: str
    #: How many things it is about.
    size: int = 1

    @property
    def key(self) -> str:
        """What tells it from others."""
        return f"{self.kind}:{self.about}"


@dataclass(frozen=True, slots=True)
class NotedTrouble:
    """What is remembered of a trouble."""

    #: Since when it stands, in seconds of the store's clock.
    since: float
    #: Its size when people were told, 0 before they were and once it is over.
    told: int = 0
    #: How often people were told that it began, as long as it is remembered.
    times: int = 0
    #: Since when it is away, 0 while it stands.
    away: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether people were told that it is over; it is remembered."""
        return self.away > 0 and not self.told


@dataclass(frozen=True, slots=True)
class Telling:
    """What people are to be told now, and what is to be remembered of it."""

    #: Those that stand for long enough, so that people know or are to be told.
    due: tuple[Trouble, ...] = ()
    #: Those of them that have grown since people were told.
    grown: frozenset[str] = frozenset()
    #: What is remembered, by ``Trouble.key``.
    noted: Mapping[str, NotedTrouble] = field(default_factory=dict)

    @property
    def standing(self) -> frozenset[str]:
        """Those that are not over, also those that are away for a moment."""
        return frozenset(key for key, note in self.noted.items() if not note.is_over)


def over(kind: TroubleKind, about: str) -> str:
    """What people are told when a trouble is over."""
    return _OVER[kind].format(about)


def follow_troubles(
    before: Mapping[str, NotedTrouble], troubles: Iterable[Trouble], now: float
) -> Telling:
    """Which of the troubles of this look people are told of."""
    noted, due, grown = {}, [], set()
    for each in troubles:
        note = before.get(each.key, NotedTrouble(now))
        if note.away:
            note = replace(note, since=now)
        # The server's clock may have been set back.
        note = replace(note, since=min(note.since, now), away=0.0)
        if now - note.since >= each.kind.patience_seconds:
            due.append(each)
            if each.size >= 2 * note.told:
                grown |= {each.key} if note.told else set()
                times = note.times + (not note.told)
                note = replace(note, told=each.size, times=times)
        noted[each.key] = note
    for key in before.keys() - noted.keys():
        if left := _when_away(before[key], now):
            noted[key] = left
    return Telling(tuple(due), frozenset(grown), noted)


def _when_away(note: NotedTrouble, now: float) -> NotedTrouble | None:
    """What is remembered of a trouble that is not there now, None for nothing."""
    if not note.times:
        return None  # It went before anybody was told.
    note = replace(note, away=min(note.away or now, now))
    if note.told and note.times >= FLAPS and now - note.away < CALM_SECONDS:
        return note  # It will be back: people are left alone.
    if now - note.away > REMEMBERED_SECONDS:
        return None
    return replace(note, told=0)


def find_troubles(
    snapshot: "Snapshot",
    waiting: Mapping[str, str],
    silent: Iterable[str],
    before: Mapping[str, NotedTrouble],
) -> Iterator[Trouble]:
    """The troubles of engines and hosts.

    ``waiting`` is why engines have no place, by engine; ``silent`` are the hosts that
    have stopped reporting.
    """
    yield from _engines(snapshot, before)
    yield from _places(waiting)
    yield from _without_worker(snapshot)
    for host in snapshot.hosts:
        yield from _host(host)
    for name in silent:
        yield Trouble(
            TroubleKind.HOST,
            name,
            f"host {name} does not report: its launcher, its network or the host "
            f"itself is away; see `modelserver why {name}`",
        )


def _engines(
    snapshot: "Snapshot", before: Mapping[str, NotedTrouble]
) -> Iterator[Trouble]:
    live = {host.name for host in snapshot.hosts}
    models: dict[tuple[TroubleKind, str], list[EngineReport]] = defaultdict(list)
    for name in snapshot.wishes:
        report = snapshot.engines.get(name)
        if report is None or report.host not in live or report.serves:
            continue
        if report.state is EngineState.FATAL:
            models[TroubleKind.FATAL, report.model].append(report)
        elif report.state is EngineState.BACKOFF or (
            # One that has died is started again: it heals when it serves.
            report.starts > 1 and f"{TroubleKind.BROKEN}:{report.model}" in before
        ):
            models[TroubleKind.BROKEN, report.model].append(report)
    for (kind, model), reports in sorted(models.items()):
        names = _named([report.id for report in reports])
        last = reports[-1]
        said = f"{last.id} on host {last.host}: {last.reason or last.progress}"
        what = "FATAL" if kind is TroubleKind.FATAL else "dead again and again"
        count = f"{len(reports)} engine{'s' * (len(reports) > 1)} of {model}"
        verb = "are" if len(reports) > 1 else "is"
        text = f"{count} {verb} {what} ({names}); {said}; see `modelserver why {model}`"
        yield Trouble(kind, model, text, len(reports))


def _places(waiting: Mapping[str, str]) -> Iterator[Trouble]:
    models: dict[str, list[str]] = defaultdict(list)
    for engine in sorted(waiting):
        models[split_engine_id(engine)[0]].append(engine)
    for model, engines in models.items():
        verb = "have" if len(engines) > 1 else "has"
        text = f"{_named(engines)} {verb} no place: {waiting[engines[0]]}"
        yield Trouble(TroubleKind.PLACE, model, text, len(engines))


def _without_worker(snapshot: "Snapshot") -> Iterator[Trouble]:
    live = {host.name for host in snapshot.hosts}
    serving = {each.host for each in snapshot.engines.values() if each.serves} & live
    for host in sorted(serving):
        if not snapshot.has_worker(host):
            text = (
                f"host {host} has engines that serve and no worker, so that they get "
                "no requests; start it there: modelserver worker"
            )
            yield Trouble(TroubleKind.WORKER, host, text)


def _named(engines: list[str]) -> str:
    rest = len(engines) - NAMED
    return ", ".join(engines[:NAMED]) + (f" and {rest} others" if rest > 0 else "")


def _host(host: Host) -> Iterator[Trouble]:
    faulty = [gpu for gpu in host.gpus if gpu.fault]
    if faulty:
        told = "; ".join(f"{gpu.label} ({gpu.uuid}): {gpu.fault}" for gpu in faulty)
        text = f"host {host.name} has a faulty GPU, which gets no engine: {told}"
        yield Trouble(TroubleKind.GPU, host.name, text, len(faulty))
    full = [disk for disk in host.disks if disk.is_short]
    if full:
        told = ", ".join(
            f"{disk.path} has {gib(disk.free)} of {gib(disk.total)} left"
            for disk in full
        )
        text = f"a disk of host {host.name} is nearly full: {told}; make room on it"
        yield Trouble(TroubleKind.DISK, host.name, text, len(full))
    if host.troubles:
        told = "; ".join(each.partition("; ")[0] for each in host.troubles)
        text = f"host {host.name}: {told}; see `modelserver why {host.name}`"
        yield Trouble(TroubleKind.LAUNCHER, host.name, text, len(host.troubles))
    if clock := clock_fault(host):
        text = f"{clock}; deadlines are missed or met by it: have it set by NTP"
        yield Trouble(TroubleKind.CLOCK, host.name, text)


def clock_fault(host: Host) -> str:
    """How wrong a host's clock is, "" where it is right."""
    ahead = host.clock_ahead_seconds
    if abs(ahead) < CLOCK_SECONDS:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    return f"the clock of host {host.name} is {abs(ahead):.0f} s {way} that of Redis"
