"""What control learns of engines that are well: fits, levels, wander. Pure.

Whatever is learned is frozen afterwards: a fault that comes slowly must not be learned
as normal. Only engines whose idle canary passed teach anything after that.

An engine's speed goes up and down by itself over minutes: its clocks, its host, its
neighbours. That is its wander. Its own level against its type's fit is therefore made
over half an hour of looks. It is never more than a passing canary may show, comes down
where the engine turns out to be faster, and fades, so that it hides no fault.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from statistics import median

from modelserver.policy.health.canaries import PASSES, Engines, Observations
from modelserver.policy.health.cost_model import MAD, Fit, Row, fit, row
from modelserver.policy.health.memory import EngineMemory, Health, TypeMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import compare_with_peers
from modelserver.policy.health.verdicts import SpeedResidual, Track
from modelserver.values import Outcome

#: Requests that a first fit needs; until it is frozen it is made anew whenever their
#: number has doubled.
FIRST_FIT = 128
#: A fit is frozen when it rests on 1024 requests ...
FREEZE_ROWS = 1024
#: ... over 600 seconds; ...
FREEZE_SECONDS = 600.0
#: ... after 3600 seconds it is frozen anyway.
FREEZE_LATEST_SECONDS = 3600.0
#: Seconds after which a frozen fit is made anew.
REFIT_SECONDS = 1800.0
#: An engine teaches a frozen fit if its canary passed within the last 900 seconds.
CANARY_FRESH_SECONDS = 900.0
#: Requests that an engine's first level needs.
LEVEL_SAMPLES = 40
#: Looks with new requests after which a level is frozen: half an hour.
LEVEL_LOOKS = 180
#: A level is at most the logarithm of this many times the fit, or of its inverse.
LEVEL_MOST = PASSES
#: Looks with new requests in which a frozen level halves: three hours.
LEVEL_HALF_LIFE = 1080
#: What engines are taken to wander before they have been seen, ...
WANDER = 0.10
#: ... which weighs as much as 30 looks.
WANDER_LOOKS = 30
#: Looks over which an engine's usual speed against its peers is averaged.
USUAL_LOOKS = 60
#: Looks over which the wander is averaged: three hours.
WANDER_MEMORY = 1080


def teaches(
    observation: Observation, memory: EngineMemory, frozen: bool, now: float
) -> bool:
    """Whether an engine's requests may be learned from.

    ``frozen`` is whether the fit of its type is.
    """
    if memory.health is not Health.HEALTHY or any(memory.slow_ticks):
        return False
    if memory.accepted:
        return False
    if frozen:
        return now - memory.canary_passed_at <= CANARY_FRESH_SECONDS
    # At first an engine without canaries is believed, one with bad ones is not.
    return bool(memory.canary_passed_at) or not observation.idle_seconds()


def with_samples(
    observations: Observations,
    engines: Engines,
    types: Mapping[str, TypeMemory],
    calm: Collection[str],
    now: float,
) -> tuple[Engines, Mapping[str, TypeMemory]]:
    """Reservoirs and fits after new samples; learns only from models in ``calm``."""
    engines, types = dict(engines), dict(types)
    for name in sorted(observations):
        observation, own = observations[name], engines[name]
        kind = types.get(observation.type, TypeMemory())
        new = [
            each
            for each in observation.fresh_samples(own)
            if each.outcome is Outcome.OK and each.ended_at > own.seen_at
        ]
        if not new:
            continue
        engines[name] = replace(own, seen_at=max(each.ended_at for each in new))
        if observation.spec.name in calm and teaches(
            observation, own, kind.frozen, now
        ):
            rows = [row(each, observation.spec.max_running) for each in reversed(new)]
            types[observation.type] = replace(
                kind,
                reservoir=kind.reservoir.offer(rows),
                first_at=kind.first_at or now,
            )
    for key in sorted(types):
        kind = types[key]
        types[key] = _refitted(kind, now)
        if kind.fit and kind.frozen and types[key].fit is not kind.fit:
            of_type = [each for each in observations.values() if each.type == key]
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
    observations: Iterable[Observation], engines: Engines, old: Fit, new: Fit | None
) -> dict[str, EngineMemory]:
    """Levels against a new fit, such that no engine's residual jumps."""
    moved = {}
    for observation in observations:
        own = engines[observation.report.id]
        rows = rows_of(observation, own)
        if own.offset is not None and rows and new:
            shift = median(new.log_ratio(each) - old.log_ratio(each) for each in rows)
            level = _capped(own.offset + shift)
            moved[observation.report.id] = replace(own, offset=level)
    return moved


def _capped(level: float) -> float:
    most = math.log(LEVEL_MOST)
    return max(-most, min(most, level))


def rows_of(observation: Observation, memory: EngineMemory) -> list[Row]:
    """An engine's answered requests that count, as the cost model takes them."""
    return [
        row(each, observation.spec.max_running)
        for each in observation.fresh_samples(memory)
        if each.outcome is Outcome.OK
    ]


def with_levels(
    observations: Observations,
    engines: Engines,
    types: Mapping[str, TypeMemory],
    speeds: Mapping[str, SpeedResidual],
    now: float,
) -> Engines:
    """The memories with levels, once the fit of a type is frozen.

    ``speeds`` are those of engines that had new requests.
    """
    learned = dict(engines)
    for name, observation in observations.items():
        own, kind = engines[name], types.get(observation.type)
        if own.offset is not None and own.offset != _capped(own.offset):
            own = learned[name] = replace(own, offset=_capped(own.offset))
        if kind is None or not kind.frozen or not kind.fit:
            continue
        if not teaches(observation, own, False, now):
            continue
        if own.offset is None:
            logs = [kind.fit.log_ratio(each) for each in rows_of(observation, own)]
            level = median(logs) if len(logs) >= LEVEL_SAMPLES else math.inf
        elif name in speeds and own.offset_looks < LEVEL_LOOKS:
            step = speeds[name].residual / (own.offset_looks + 1)
            level = own.offset + step
        elif name in speeds:
            learned[name] = replace(own, offset=_faded(own.offset, speeds[name], kind))
            continue
        else:
            continue
        # What is slower than that is a fault or for canaries to tell, not a level.
        if level < math.log(LEVEL_MOST):
            looks = own.offset_looks + 1
            level = _capped(level)
            learned[name] = replace(own, offset=level, offset_looks=looks)
    return learned


def _faded(level: float, speed: SpeedResidual, kind: TypeMemory) -> float:
    """A frozen level after one more look.

    One that says slow comes down where the engine is faster than that by more than
    engines of its type go up and down by themselves.
    """
    faded: float = level * 0.5 ** (1 / LEVEL_HALF_LIFE)
    if speed.residual < -2 * (kind.wander + speed.error):
        return min(faded, max(0.0, level + speed.residual / LEVEL_LOOKS))
    return faded


def with_wander(
    observations: Observations,
    engines: Engines,
    types: Mapping[str, TypeMemory],
    speeds: Mapping[str, SpeedResidual],
    tracks: Mapping[str, Track],
    now: float,
) -> tuple[Engines, Mapping[str, TypeMemory]]:
    """How far engines of each type wander around their usual speeds.

    At each look the median over the engines counts, so that a few slow ones teach
    nothing. Usual speeds follow slow changes, so that these teach little.
    """
    engines, learned = dict(engines), dict(types)
    away: dict[str, list[float]] = defaultdict(list)
    peers = trusted_by_model(observations, engines)
    for name in speeds:
        observation, own = observations[name], engines[name]
        if teaches(observation, own, False, now):
            of_model = peers[observation.spec.name]
            by = compare_with_peers(name, speeds, of_model, tracks)
            if by is None:
                continue
            beyond = by.excess - own.usual
            away[observation.type].append(abs(beyond))
            usual = own.usual + beyond / USUAL_LOOKS
            engines[name] = replace(own, usual=usual)
    for key, values in away.items():
        kind = types[key]
        old = kind.wander if kind.wander_looks else WANDER
        looks = min(WANDER_MEMORY, 1 + (kind.wander_looks or WANDER_LOOKS))
        wander = old + (MAD * median(values) - old) / looks
        learned[key] = replace(kind, wander=wander, wander_looks=looks)
    return engines, learned


def trusted_by_model(
    observations: Observations, engines: Engines
) -> Mapping[str, list[str]]:
    """The engines that nobody suspects, by model."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, observation in observations.items():
        if engines[name].health.is_trusted:
            found[observation.spec.name].append(name)
    return found
