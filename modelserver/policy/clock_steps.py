"""What is remembered and measured, where the server's clock was set back. Pure.

A failover to a server whose clock is behind does that, and so does NTP. Without this
nothing would be judged until the clock is where it was. What launchers report is by the
clock of now within seconds.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from modelserver.measured import Canary, Sample
from modelserver.policy.snapshot import Snapshot

_T = TypeVar("_T")
_Measured = TypeVar("_Measured", Sample, Canary)

#: What is measured later than now by more is from before the clock was set back:
#: workers and launchers follow the server's clock, but not to the second. Nor does
#: control look more often than that at all that it remembers.
AHEAD_SECONDS = 10.0
#: How the names of fields end that hold times of the store's clock.
_TIMES = ("_at", "_since", "_from", "_until")


def by_clock_of_now(snapshot: Snapshot, now: float) -> Snapshot:
    """The snapshot without times to come, all else as it was.

    Control never remembers to have looked later than now, so what it remembers goes
    back by as much. What was measured before is left out: nobody knows when it was.
    """
    memory, moves = snapshot.memory, snapshot.moves
    looked = [moves.ticked_at or 0.0] if moves else []
    if memory:
        looked += [memory.judged_at, *(each.since for each in memory.engines.values())]
    ahead = max(looked, default=0.0) - now
    if ahead > 0:
        # Rather too much: what came after the last look counts as new then.
        back = ahead + AHEAD_SECONDS
        memory, moves = set_back(memory, back), set_back(moves, back)
    latest = now + AHEAD_SECONDS
    return replace(
        snapshot,
        memory=memory,
        moves=moves,
        samples=_until(snapshot.samples, "ended_at", latest),
        canaries=_until(snapshot.canaries, "at", latest),
    )


def set_back(remembered: _T, seconds: float) -> _T:
    """A value whose times are earlier by so many seconds; 0 and None stay: never.

    >>> from modelserver.policy.rebalance.state import PastMove
    >>> set_back((PastMove(1000.0, "a", "b"),), 60.0)
    (PastMove(at=940.0, donor='a', taker='b'),)
    """
    found: _T = _set_back(remembered, seconds)
    return found


def _set_back(value: Any, seconds: float) -> Any:
    if isinstance(value, Mapping):
        return {key: _set_back(each, seconds) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_set_back(each, seconds) for each in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {}
    for name in (each.name for each in fields(value)):
        old = getattr(value, name)
        is_time = old and f"_{name}".endswith(_TIMES)
        changed[name] = old - seconds if is_time else _set_back(old, seconds)
    return replace(value, **changed)


def _until(
    measured: Mapping[str, tuple[_Measured, ...]], field: str, latest: float
) -> Mapping[str, tuple[_Measured, ...]]:
    """What was measured up to a time, by engine; the same where that is all."""
    found = dict(measured)
    for engine, every in measured.items():
        if any(getattr(each, field) > latest for each in every):
            found[engine] = tuple(e for e in every if getattr(e, field) <= latest)
    return found
