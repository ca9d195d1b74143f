"""Each engine's own level against its type's fit, and how far engines wander. Pure.

An engine's speed goes up and down by itself over minutes: its clocks, its host, its
neighbours. A level from one moment is as wrong as that moment, so it is made over half
an hour of looks and frozen afterwards.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

from modelserver.policy.health import criteria
from modelserver.policy.health.cost_model import MAD
from modelserver.policy.health.learning import (
    PASSES,
    Engines,
    Sights,
    rows_of,
    teaches,
)
from modelserver.policy.health.memory import TypeMemory
from modelserver.policy.health.verdicts import SpeedResidual

#: Requests that an engine's own level needs at first.
LEVEL_SAMPLES = 40
#: Looks that it is made from, of those that brought requests.
LEVEL_LOOKS = 180
#: What engines are thought to wander before they have been seen for so many looks.
WANDER, WANDER_LOOKS = 0.10, 30
#: Of how many looks an engine's usual place is a mean.
USUAL_LOOKS = 60
#: Of how many looks the wander is a mean.
WANDER_MEMORY = 1080


def with_levels(
    sights: Sights,
    engines: Engines,
    types: Mapping[str, TypeMemory],
    standings: Mapping[str, SpeedResidual],
    now: float,
) -> Engines:
    """Levels once the fit of a type is frozen, and made surer by each look.

    ``standings`` are those of this look that had new requests.
    """
    learned = dict(engines)
    for name, sight in sights.items():
        own, kind = engines[name], types.get(sight.type)
        if kind is None or not kind.frozen or not kind.fit:
            continue
        if not teaches(sight, own, False, now):
            continue
        if own.offset is None:
            logs = [kind.fit.log_ratio(each) for each in rows_of(sight, own)]
            level = median(logs) if len(logs) >= LEVEL_SAMPLES else math.inf
        elif name in standings and own.offset_looks < LEVEL_LOOKS:
            step = standings[name].residual / (own.offset_looks + 1)
            level = own.offset + step
        else:
            continue
        # Slower than that is a fault, or a matter for canaries, not a level.
        if level < math.log(PASSES):
            looks = own.offset_looks + 1
            learned[name] = replace(own, offset=level, offset_looks=looks)
    return learned


def with_wander(
    sights: Sights,
    engines: Engines,
    types: Mapping[str, TypeMemory],
    standings: Mapping[str, SpeedResidual],
    now: float,
) -> tuple[Engines, Mapping[str, TypeMemory]]:
    """How far engines of each type go up and down around where they usually are.

    The median over the engines at each look, so that a few slow ones teach nothing;
    around the usual, so that one which gets slower over hours teaches little.
    """
    engines, learned = dict(engines), dict(types)
    away: dict[str, list[float]] = defaultdict(list)
    peers = trusted(sights, engines)
    for name in standings:
        sight, own = sights[name], engines[name]
        if teaches(sight, own, False, now):
            of_model = peers[sight.spec.name]
            beyond = criteria.compared(name, standings, of_model).excess - own.usual
            away[sight.type].append(abs(beyond))
            usual = own.usual + beyond / USUAL_LOOKS
            engines[name] = replace(own, usual=usual)
    for key, values in away.items():
        kind = types[key]
        old = kind.wander if kind.wander_looks else WANDER
        looks = min(WANDER_MEMORY, 1 + (kind.wander_looks or WANDER_LOOKS))
        wander = old + (MAD * median(values) - old) / looks
        learned[key] = replace(kind, wander=wander, wander_looks=looks)
    return engines, learned


def trusted(sights: Sights, engines: Engines) -> Mapping[str, list[str]]:
    """The engines that nobody suspects, by model."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, sight in sights.items():
        if engines[name].health.is_trusted:
            found[sight.spec.name].append(name)
    return found
