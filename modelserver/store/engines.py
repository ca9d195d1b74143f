"""Engines, as their launchers report them."""

import dataclasses
import json

from modelserver.decoding import decode
from modelserver.store.state import Store
from modelserver.values import EngineReport


def report_engine(store: Store, engine: EngineReport) -> None:
    """Write a launcher's report and tell whoever watches."""
    with store.client.pipeline() as pipe:
        value = json.dumps(dataclasses.asdict(engine))
        pipe.hset(store.keys.engines, engine.id, value)
        pipe.publish(store.keys.changed, engine.id)
        pipe.execute()


def remove_engine(store: Store, engine: str) -> None:
    """Forget an engine that is wanted no longer and has ended."""
    with store.client.pipeline() as pipe:
        pipe.hdel(store.keys.engines, engine)
        pipe.hdel(store.keys.metrics, engine)
        pipe.delete(store.keys.samples(engine), store.keys.counters(engine))
        pipe.delete(store.keys.canaries(engine))
        pipe.publish(store.keys.changed, engine)
        pipe.execute()


def next_incarnation(store: Store, engine: str) -> int:
    """Count one more start of this engine."""
    return int(store.run("HINCRBY", store.keys.incarnations, engine, 1))


def read_engines(store: Store) -> dict[str, EngineReport]:
    """The launchers' last reports, by engine, dead hosts' engines included."""
    values = store.run("HGETALL", store.keys.engines)
    return {key: decode_engine(value) for key, value in sorted(values.items())}


def decode_engine(value: str | bytes) -> EngineReport:
    """An engine's report from its JSON; ignores what a newer launcher adds."""
    return decode(EngineReport, json.loads(value))
