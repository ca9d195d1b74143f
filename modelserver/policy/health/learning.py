"""What control learns of engines that are well: the fit, their levels, baselines. Pure.

Whatever is learned is frozen afterwards: a fault that comes slowly must not be learned
as normal. Only engines whose idle canary passed teach anything after that.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from statistics import median

from modelserver.policy.health.cost_model import Fit, Row, fit, row
from modelserver.policy.health.memory import EngineMemory, Health, TypeMemory
from modelserver.policy.health.observation import Observation
from modelserver.values import Outcome

#: Requests that a first fit needs; it is made anew at each doubling until it is frozen.
FIRST_FIT = 128
#: A fit is frozen with so many requests and this old, or so old; both in seconds.
FREEZE_ROWS, FREEZE_SECONDS, FREEZE_LATEST_SECONDS = 1024, 600.0, 3600.0
#: A frozen fit is made anew so often, by engines whose canary passed so lately.
REFIT_SECONDS, CANARY_FRESH_SECONDS = 1800.0, 900.0
#: Idle canaries that a baseline needs.
BASELINE_CANARIES = 3
#: What a canary may take at least: of a few milliseconds, the host's own are a part.
LEAST_SECONDS = 0.02
#: A canary below so many times its baseline passes.
PASSES = 1.25
#: A new engine with a canary so far above the others of its type teaches nothing.
SUSPICIOUS = 1.3
#: What the loaded canary takes, next to the idle one, before any has been seen.
LOADED = 1.5


Engines = Mapping[str, EngineMemory]
Sights = Mapping[str, Observation]


class Typical:
    """What canaries of each type's engines should take, by the engines themselves.

    Sorted, so that a look at n engines costs n log n and not n².
    """

    def __init__(self, engines: Engines, sights: Sights) -> None:
        self._known: defaultdict[tuple[str, bool], list[float]] = defaultdict(list)
        for name, sight in sights.items():
            self.note(sight, engines[name].baseline)
            self.note(sight, engines[name].loaded_baseline, loaded=True)

    def note(self, sight: Observation, seconds: float, loaded: bool = False) -> None:
        """An engine's baseline; 0 for none."""
        if seconds:
            insort(self._known[sight.type, loaded], seconds)

    def of_others(self, sight: Observation, own: float, loaded: bool = False) -> float:
        """The median of its type without ``own``, its own baseline; 0 for none."""
        values = self._known[sight.type, loaded]
        left_out = bisect_left(values, own) if own else len(values)
        others = len(values) - bool(own)
        if not others:
            return 0.0
        low, high = (
            values[place + (place >= left_out)]
            for place in ((others - 1) // 2, others // 2)
        )
        return (low + high) / 2


def baselines(
    sight: Observation, engines: Engines, typical: Typical
) -> tuple[float, float]:
    """What its idle and its loaded canary should take, in seconds; 0 where unknown.

    Its own of better days or the median of its type, whichever is more: its own may
    come from a moment in which it was faster than it mostly is.
    """
    own = engines[sight.report.id]
    idle = max(own.baseline, typical.of_others(sight, own.baseline))
    others = typical.of_others(sight, own.loaded_baseline, loaded=True)
    return _beyond_noise(idle), _beyond_noise(max(own.loaded_baseline, others))


def _beyond_noise(seconds: float) -> float:
    return max(seconds, LEAST_SECONDS) if seconds else 0.0


def slowdown(sight: Observation, engines: Engines, typical: Typical) -> float:
    """Times that its canaries take of what they should; 0 before all have come back."""
    since = engines[sight.report.id].fresh_from
    idle, loaded = sight.idle(since), sight.loaded(since)
    if len(idle) < BASELINE_CANARIES or not loaded:
        return 0.0
    normal, normal_loaded = baselines(sight, engines, typical)
    if not normal:
        return 1.0
    took = median(idle[:BASELINE_CANARIES])
    return max(took / normal, loaded[0] / (normal_loaded or LOADED * normal))


def with_canaries(sights: Sights, engines: Engines, now: float) -> Engines:
    """The memories with new baselines, and with who has passed a canary."""
    learned, typical = dict(engines), Typical(engines, sights)
    for name in sorted(sights):
        sight, old = sights[name], learned[name]
        idle = sight.idle()
        if not idle or old.health.is_held:
            continue
        normal, normal_loaded = baselines(sight, learned, typical)
        new = old
        if not old.baseline and len(idle) >= BASELINE_CANARIES:
            took = median(idle[:BASELINE_CANARIES])
            if took < SUSPICIOUS * (normal or took):
                # What is now its normal speed has passed, whichever came last.
                at = sight.own()[0].at
                new = replace(new, baseline=took, canary_passed_at=min(at, now))
                typical.note(sight, took)
        if (
            not old.loaded_baseline
            and new.baseline
            and (loaded := sight.loaded())
            and loaded[0] < SUSPICIOUS * (normal_loaded or loaded[0])
        ):
            new = replace(new, loaded_baseline=loaded[0])
            typical.note(sight, loaded[0], loaded=True)
        last = max(each.at for each in sight.own() if not each.loaded)
        if new.baseline and idle[0] < PASSES * max(normal, new.baseline):
            new = replace(new, canary_passed_at=min(last, now))
        learned[name] = new
    return learned


def teaches(sight: Observation, memory: EngineMemory, frozen: bool, now: float) -> bool:
    """Whether an engine's requests may be learned from; ``frozen``: its type's fit."""
    if memory.health is not Health.HEALTHY or any(memory.slow_ticks):
        return False
    if frozen:
        return now - memory.canary_passed_at <= CANARY_FRESH_SECONDS
    # At first an engine without canaries is believed, one with bad ones is not.
    return bool(memory.canary_passed_at) or not sight.idle()


def with_samples(
    sights: Sights,
    engines: Engines,
    types: Mapping[str, TypeMemory],
    calm: Collection[str],
    now: float,
) -> tuple[Engines, Mapping[str, TypeMemory]]:
    """Reservoirs and fits after new samples. ``calm``: models to learn from."""
    engines, types = dict(engines), dict(types)
    for name in sorted(sights):
        sight, own = sights[name], engines[name]
        kind = types.get(sight.type, TypeMemory())
        new = [
            each
            for each in sight.fresh(own)
            if each.outcome is Outcome.OK and each.ended_at > own.seen_at
        ]
        if not new:
            continue
        engines[name] = replace(own, seen_at=max(each.ended_at for each in new))
        if sight.spec.name in calm and teaches(sight, own, kind.frozen, now):
            rows = [row(each, sight.spec.max_running) for each in reversed(new)]
            types[sight.type] = replace(
                kind,
                reservoir=kind.reservoir.offer(rows),
                first_at=kind.first_at or now,
            )
    for key in sorted(types):
        kind = types[key]
        types[key] = _refitted(kind, now)
        if kind.fit and kind.frozen and types[key].fit is not kind.fit:
            of_type = [each for each in sights.values() if each.type == key]
            engines.update(_moved_levels(of_type, engines, kind.fit, types[key].fit))
    return engines, types


def _refitted(kind: TypeMemory, now: float) -> TypeMemory:
    offered = kind.reservoir.offered
    if offered < FIRST_FIT:
        return kind
    age = now - kind.first_at
    if kind.frozen:
        if now - kind.fitted_at < REFIT_SECONDS or offered < 1.1 * kind.fitted_count:
            return kind
    else:
        freeze = age >= FREEZE_SECONDS and offered >= FREEZE_ROWS
        freeze = freeze or age >= FREEZE_LATEST_SECONDS
        if not freeze and offered < 2 * kind.fitted_count:
            return kind
        kind = replace(kind, frozen=freeze)
    return replace(
        kind, fit=fit(kind.reservoir.rows), fitted_at=now, fitted_count=offered
    )


def _moved_levels(
    sights: Iterable[Observation], engines: Engines, old: Fit, new: Fit | None
) -> dict[str, EngineMemory]:
    """Levels by a new fit, such that no engine's residual jumps."""
    moved = {}
    for sight in sights:
        own = engines[sight.report.id]
        rows = rows_of(sight, own)
        if own.offset is not None and rows and new:
            shift = median(new.log_ratio(each) - old.log_ratio(each) for each in rows)
            moved[sight.report.id] = replace(own, offset=own.offset + shift)
    return moved


def rows_of(sight: Observation, memory: EngineMemory) -> list[Row]:
    """An engine's answered requests that count."""
    return [
        row(each, sight.spec.max_running)
        for each in sight.fresh(memory)
        if each.outcome is Outcome.OK
    ]
