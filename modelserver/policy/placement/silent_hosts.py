"""How long the engines of a host that stopped reporting keep their places. Pure.

A launcher is silent while it is upgraded, or while the network is away, and its engines
serve on. Time in which nobody looked, or in which the store was away, does not count.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from modelserver.policy.health.memory import (
    UNMEASURED_DOWNTIME_SECONDS,
    HealthMemory,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, EngineState

#: Seconds that the engines of a silent host keep their places at least, where the fleet
#: file does not say; models that take longer to load keep them for as long.
LEAST_GRACE_SECONDS = 60.0
#: Seconds without a look of control after which it begins anew to count silence.
UNWATCHED_SECONDS = 10.0
#: Seconds that hosts have to report once control looks again, or once the store has
#: lost its data; before, nothing is placed.
REPORTING_SECONDS = 6.0
#: An engine serves if it gave a token so many seconds ago; an old report may be of one
#: that has ended.
PROVED_SECONDS = 10.0
#: The states in which an engine has what a move would lose.
LOADED = frozenset(
    {
        EngineState.STARTING,
        EngineState.READY,
        EngineState.DEGRADED,
        EngineState.UNKNOWN,
    }
)


@dataclass(frozen=True, slots=True)
class HostSilences:
    """What control remembers of its hosts. Times are the store's clock."""

    #: Since when each silent host has been silent.
    since: Mapping[str, float] = field(default_factory=dict)
    #: Since when control has looked without a long gap.
    resumed_at: float = 0.0

    def awaits_hosts(self, now: float) -> bool:
        """Whether hosts that are known still have the time to report."""
        return bool(self.since) and now - self.resumed_at < REPORTING_SECONDS


def follow(
    before: HostSilences,
    known: Collection[str],
    live: Collection[str],
    looked_at: float,
    now: float,
) -> HostSilences:
    """The silences after one look; ``looked_at`` is when control looked before.

    ``known`` are the hosts that have reported and have not said that they end.
    """
    if now - looked_at > UNWATCHED_SECONDS:
        before = HostSilences(resumed_at=now)
    silent = sorted(set(known) - set(live))
    # The server's clock may have been set back: nothing began after now.
    since = {host: min(before.since.get(host, now), now) for host in silent}
    return replace(before, since=since, resumed_at=min(before.resumed_at, now))


def find_away(
    snapshot: Snapshot, silences: HostSilences, grace_seconds: float, now: float
) -> dict[str, str]:
    """The engines that keep their places though their hosts are silent, with why.

    ``grace_seconds`` is for how long, 0 for as long as their model takes to load.
    """
    away = {}
    for name, report in snapshot.engines.items():
        since = silences.since.get(report.host)
        if since is None or report.state not in LOADED:
            continue
        seconds = grace_seconds or _load_seconds(report, snapshot.memory)
        if now - since < seconds:
            away[name] = (
                f"the launcher of host {report.host} is silent; the engine keeps its "
                f"place there for {seconds:.0f} s in all"
            )
    return away


def find_returned(snapshot: Snapshot, now: float) -> tuple[str, ...]:
    """The engines that serve on a live host though they are wanted on another one."""
    live = {host.name for host in snapshot.hosts}
    return tuple(
        name
        for name, wish in snapshot.wishes.items()
        if (report := snapshot.engines.get(name))
        and report.serves
        and report.host in live - {wish.spec.host, wish.left}
        and now - report.alive_at < PROVED_SECONDS
    )


def _load_seconds(report: EngineReport, memory: HealthMemory | None) -> float:
    model = memory.models.get(report.model) if memory else None
    if model is None or model.load_seconds == UNMEASURED_DOWNTIME_SECONDS:
        return LEAST_GRACE_SECONDS
    return max(LEAST_GRACE_SECONDS, model.load_seconds)
