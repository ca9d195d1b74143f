"""What a decision was made from, as JSON and back, so that it can be made again. Pure.

Values become objects by their fields' names, and come back by their types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

import orjson

from modelserver.decoding import decode
from modelserver.measured import Sample
from modelserver.policy.actions import Action
from modelserver.policy.decide import Decision, Rules, consider
from modelserver.policy.health.memory import from_json as memory_from_json
from modelserver.policy.health.memory import to_json as memory_to_json
from modelserver.policy.rebalance.state import from_json as moves_from_json
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Json, Outcome

#: The fields of a sample but for its engine, which is the key of its list.
_SAMPLE = tuple(each.name for each in fields(Sample) if each.name != "engine")
_values_of = attrgetter(*_SAMPLE)


@dataclass(frozen=True, slots=True)
class RulesOf:
    """The rules by which a decision was made."""

    hang_seconds: float
    relaunch_pause_seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """One decision as it was made: from what, when, and which actions followed."""

    snapshot: Snapshot
    rules: RulesOf
    now: float
    #: As ``actions_to_json`` gives them.
    actions: Json

    def again(self) -> Decision:
        """What would be decided from the same today."""
        return consider(self.snapshot, self.rules, self.now)


def look_to_json(
    snapshot: Snapshot, rules: Rules, now: float, actions: Sequence[Action]
) -> bytes:
    """A decision and all that it depended on."""
    kept = RulesOf(rules.hang_seconds, rules.relaunch_pause_seconds)
    values = {
        "now": now,
        "rules": kept,
        "actions": actions_to_json(actions),
        "snapshot": orjson.Fragment(snapshot_to_json(snapshot)),
    }
    return orjson.dumps(values)


def look_from_json(text: str | bytes) -> Look:
    """A decision from its JSON."""
    values = orjson.loads(text)
    rules = decode(RulesOf, values["rules"])
    snapshot = _snapshot(values["snapshot"])
    return Look(snapshot, rules, values["now"], values["actions"])


def actions_to_json(actions: Sequence[Action]) -> Json:
    """Actions as plain values that can be compared: their kind, and their fields."""
    return [
        {"action": type(each).__name__.lower(), **orjson.loads(orjson.dumps(each))}
        for each in actions
    ]


def snapshot_to_json(snapshot: Snapshot) -> bytes:
    """A snapshot without its models' environments, whose values may be secrets."""
    values: dict[str, Any] = {
        each.name: getattr(snapshot, each.name) for each in fields(snapshot)
    }
    values["specs"] = [replace(spec, environment={}) for spec in snapshot.specs]
    values["samples"] = {
        engine: [_packed(sample) for sample in samples]
        for engine, samples in snapshot.samples.items()
    }
    values["memory"] = (
        orjson.Fragment(memory_to_json(snapshot.memory))
        if snapshot.memory is not None
        else None
    )
    return orjson.dumps(values, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no value of a snapshot")


def snapshot_from_json(text: str | bytes) -> Snapshot:
    """A snapshot from its JSON."""
    return _snapshot(orjson.loads(text))


def _snapshot(values: dict[str, Any]) -> Snapshot:
    if "desired" in values:  # So it was called in version 0.1.
        values["wishes"] = values.pop("desired")
    special = {name: values.pop(name, None) for name in ("samples", "memory", "moves")}
    snapshot = decode(Snapshot, values)
    memory, moves = special["memory"], special["moves"]
    return replace(
        snapshot,
        samples={
            engine: tuple(_sample(engine, each) for each in samples)
            for engine, samples in (special["samples"] or {}).items()
        },
        memory=memory and memory_from_json(orjson.dumps(memory).decode()),
        moves=moves and moves_from_json(moves),
    )


def _packed(sample: Sample) -> tuple[Json, ...]:
    """A sample as its values; the version before does not know WITHDRAWN."""
    if sample.outcome is not Outcome.WITHDRAWN:
        return _values_of(sample)
    return (*_values_of(replace(sample, outcome=Outcome.CANCELLED)), sample.outcome)


def _sample(engine: str, packed: Sequence[Json]) -> Sample:
    withdrawn = packed[-1] == Outcome.WITHDRAWN
    named = dict(zip(_SAMPLE, packed[:-1] if withdrawn else packed, strict=False))
    if withdrawn:
        named["outcome"] = Outcome.WITHDRAWN
    return decode(Sample, {"engine": engine, **named})
