"""Which submitted runs a process takes, and which run a name means. Pure."""

from collections.abc import Collection, Iterable, Sequence

from modelserver.errors import ModelserverError
from modelserver.store.runs.hosted import HolderReport, HostedRun, RunState

#: The priority of runs that do not say, as for other requests.
USUAL_PRIORITY = 0
#: What the names of runs begin with.
NAME_START = "run"


def find_takeable(
    runs: Iterable[HostedRun], held: Collection[str], now: float
) -> list[HostedRun]:
    """The runs to take, the most urgent first, then the first submitted.

    ``held`` are those that this process has.
    """
    free = [
        each
        for each in runs
        if each.run.id not in held
        and each.state(now) in (RunState.WAITING, RunState.PAUSED)
        and not each.order
        and each.standing.again_at <= now
    ]
    return sorted(free, key=_urgency)


def _urgency(found: HostedRun) -> tuple[int, float]:
    priority = found.run.options.get("priority")
    urgency = priority if isinstance(priority, int) else USUAL_PRIORITY
    return urgency, found.run.at


def find_left_behind(runs: Iterable[HostedRun], now: float) -> list[HostedRun]:
    """Runs whose holder died before it had done what operators wanted."""
    return [each for each in runs if each.order and each.holder and each.until <= now]


def find_run_id(name: str, ids: Sequence[str]) -> str:
    """The run that a name means, which may leave out its end, or its "run".

    >>> find_run_id("39", ["run39922ea756d9", "run4c0ffee"])
    'run39922ea756d9'
    """
    if name in ids:
        return name
    starts = (name, f"{NAME_START}{name}")
    found = [each for each in ids if name and each.startswith(starts)]
    if len(found) == 1:
        return found[0]
    if found:
        told = ", ".join(sorted(found)[:8])
        raise ModelserverError(f"{name} may be any of {told}; say more of it")
    raise ModelserverError(f"there is no run {name}; `modelserver batch list` has all")


def find_obstacle(found: HostedRun, holders: Sequence[HolderReport], now: float) -> str:
    """Why a run that waits is not gone on with, "" where it will be at once."""
    if found.state(now) != RunState.WAITING:
        return found.standing.reason
    if not holders:
        return "no process `modelserver batches` runs; start it, or `modelserver up`"
    reasons = [each.unseen.get(found.run.id) for each in holders]
    if all(reasons):
        told = "; ".join(sorted({str(reason) for reason in reasons}))
        return (
            f"{told}. It was submitted on {found.run.host}: start `modelserver batches`"
            " where its files are seen"
        )
    return found.standing.reason
