"""The memory of the rules as JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields

from modelserver.policy.rebalance.state import Memory, Meter, Move, Past
from modelserver.values import Json


def to_json(memory: Memory) -> dict[str, Json]:
    """The memory as plain values."""
    return asdict(memory)


def from_json(values: Mapping[str, Json]) -> Memory:
    """The memory that ``to_json`` gave; what an older version left out is empty."""
    return Memory(
        ticked_at=values.get("ticked_at"),
        meters={
            name: Meter(**_fields(Meter, each))
            for name, each in values.get("meters", {}).items()
        },
        finished=dict(values.get("finished", {})),
        moves=tuple(Move(**_fields(Move, each)) for each in values.get("moves", ())),
        past=tuple(Past(**_fields(Past, each)) for each in values.get("past", ())),
    )


def _fields(
    kind: type[Meter] | type[Move] | type[Past], values: Mapping[str, Json]
) -> dict[str, Json]:
    known = {each.name for each in fields(kind)}
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key in known
    }
