"""Orders of operators, in a key of their own that control reads and never writes."""

import dataclasses
import json

from modelserver.decoding import decode
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each
from modelserver.values import Order


def orders(store: Store) -> tuple[Order, ...]:
    """All orders, those whose time is over included."""
    values = store.run("HGETALL", store.keys.operator)
    found = read_each(store, "order", values, _read)
    return tuple(sorted(found.values(), key=lambda each: (each.target, each.kind)))


def _read(text: str) -> Order:
    return decode(Order, json.loads(text))


def give(store: Store, order: Order) -> None:
    """Write an order; one of the same kind about the same target gives way to it."""
    value = json.dumps(dataclasses.asdict(order))
    store.client.hset(store.keys.operator, f"{order.kind}:{order.target}", value)


def take_back(store: Store, kind: str, target: str) -> bool:
    """Delete an order; False if there was none."""
    return bool(store.client.hdel(store.keys.operator, f"{kind}:{target}"))
