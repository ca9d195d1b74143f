"""What engines without a place wait for."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from modelserver.policy.orders import DRAIN_HOST
from modelserver.values import Order, Wish, split_engine_id


def waiting_for(model: str, waiting: Mapping[str, str]) -> str:
    """The engines of a model by what they wait for: "m-1, m-2: needs ..."."""
    engines: dict[str, list[str]] = {}
    for engine, reason in waiting.items():
        if split_engine_id(engine)[0] == model:
            engines.setdefault(reason, []).append(engine)
    parts = (f"{', '.join(names)}: {reason}" for reason, names in engines.items())
    return " | ".join(parts)


def find_absent(
    wishes: Mapping[str, Wish],
    waiting: Iterable[str],
    live: Collection[str],
    ordered: Iterable[Order],
) -> defaultdict[str, set[str]]:
    """The hosts that engines without a place wait for, by model; none is drained."""
    found = defaultdict[str, set[str]](set)
    here = {*live, *(each.target for each in ordered if each.kind == DRAIN_HOST)}
    for engine in waiting:
        if wish := wishes.get(engine):
            hosts = {place.host for place in wish.spec.places if place.host}
            found[wish.spec.model] |= hosts - here
    return found
