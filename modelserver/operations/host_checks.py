"""What ``doctor`` looks at of beat and of the hosts, those that are gone included."""

import resource
from collections.abc import Iterator

from modelserver.inventory import Host, gib
from modelserver.operations.check import Check
from modelserver.operations.status import Status
from modelserver.policy.orders import DRAIN_HOST
from modelserver.policy.troubles import clock_fault
from modelserver.values import EngineState

#: Control is late when it has not looked for this number of its periods ...
LATE_LOOKS = 3
#: ... and this many seconds more.
LATE_SECONDS = 4.0
#: The fewest files that a worker or a gateway may have open, connections included.
LEAST_FILES = 4096


def check_hosts(status: Status, steer_seconds: float) -> Iterator[Check]:
    """Launchers, workers and beat, and what launchers report of their hosts."""
    hosts = ", ".join(f"{h.name} ({len(h.gpus)} GPUs)" for h in status.hosts)
    start = "start it on {}: modelserver {}"
    remedy = "" if hosts else start.format("each host with engines", "launcher")
    yield Check("launchers", hosts or "none reports", remedy)
    yield from _lost_hosts(status)
    workers = ", ".join(worker.name for worker in status.workers)
    remedy = "" if workers else start.format("each host with engines", "worker")
    yield Check("workers", workers or "none reports", remedy)
    for host in status.hosts:
        yield from find_no_worker(status, host)
    yield check_beat(status.at, status.steered_at, steer_seconds)
    for host in status.hosts:
        yield from check_report(host)


def _lost_hosts(status: Status) -> Iterator[Check]:
    drained = {each.target for each in status.orders if each.kind == DRAIN_HOST}
    for name in status.lost_hosts:
        ours = [each for each in status.engines if each.host == name]
        serving = sum(each.state.serves for each in ours)
        fact = "it was here, and its launcher does not report"
        if serving:
            fact += f"; {serving} of its engines served when it last did"
        remedy = (
            f"start it on {name}: modelserver launcher; or look at that host and its "
            "network"
        )
        yield Check(f"host {name}", fact, remedy, is_note=name in drained)


def find_no_worker(status: Status, host: Host) -> Iterator[Check]:
    """That the engines of a host get no requests, where that is so."""
    ours = [each for each in status.engines if each.host == host.name]
    served = any(worker.host == host.name for worker in status.workers)
    if any(each.state.serves for each in ours) and not served:
        fact = "its engines serve, and no worker asks them"
        remedy = f"start it on {host.name}: modelserver worker"
        yield Check(f"host {host.name}", fact, remedy)


def check_beat(now: float, steered_at: float, steer_seconds: float) -> Check:
    """Whether control looks at the fleet as often as it should."""
    remedy = "start it on one host: modelserver beat (and at least one worker)"
    if not steered_at:
        return Check("beat", "control has never looked at this fleet", remedy)
    ago = max(0.0, now - steered_at)
    late = ago > LATE_LOOKS * steer_seconds + LATE_SECONDS
    fact = f"control looked at the fleet {ago:.0f} s ago"
    return Check("beat", fact, remedy if late else "")


def check_report(host: Host) -> Iterator[Check]:
    """The disks, the troubles and the clock of a host, as its launcher reports them."""
    for disk in host.disks:
        what = f"disk of {disk.path} on {host.name}"
        fact = f"{gib(disk.free)} of {gib(disk.total)} left"
        if disk.is_short:
            yield Check(what, fact, "make room on it: logs and weights need it")
        elif disk.is_remote:
            remedy = (
                "set MODELSERVER_HOME to a folder on a disk of each host, unless "
                "this is meant"
            )
            yield Check(what, f"{fact}, on {disk.kind}", remedy, is_note=True)
    for trouble in host.troubles:
        fact, _, remedy = trouble.partition("; ")
        yield Check(f"host {host.name}", fact, remedy or "see its launcher's log")
    if fault := clock_fault(host):
        remedy = "have it set: timedatectl set-ntp true, or chronyd"
        yield Check(f"clock of {host.name}", fault, remedy)


def check_limits() -> Check:
    """How many files a program of this user may have open on this host."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    short = files != resource.RLIM_INFINITY and files < LEAST_FILES
    remedy = (
        f"raise it to {LEAST_FILES} or more: ulimit -n, or LimitNOFILE= of the units"
    )
    return Check("open files", f"{files} at most", remedy * short)


def check_engines(status: Status) -> Iterator[Check]:
    """Engines that do not get ready."""
    for engine in status.engines:
        if engine.state in (EngineState.FATAL, EngineState.BACKOFF):
            # A reason has its remedy, or its log, behind it. One that was never started
            # has no log.
            reason, _, remedy = engine.reason.partition("; ")
            remedy = remedy or f"see {engine.log or 'its log'}"
            where = f"on host {engine.host}: {remedy}"
            yield Check(f"engine {engine.id}", f"{engine.state}: {reason}", where)


def check_exposed(engine: str, where: str, status: Status | None) -> Check:
    """An engine that other hosts can reach; one with nodes on several has to be."""
    engines = status.engines if status else ()
    is_wide = any(each.id == engine and each.followers for each in engines)
    remedy = "have it listen on 127.0.0.1, or close these ports to other hosts"
    if is_wide:
        remedy = "its nodes meet there; close these ports to all but the fleet's hosts"
    return Check(f"engine {engine}", f"listens on {where}", remedy, is_note=is_wide)
