"""Engines, as their launchers report them."""

import dataclasses
import json

from modelserver.decoding import decode
from modelserver.store.scripts import state as state_scripts
from modelserver.store.server.state import Store
from modelserver.store.server.versions import read_each
from modelserver.values import EngineReport

#: What workers do not need of a report. If nothing else changes, nobody is told.
NOT_NEEDED = frozenset(
    {
        *("pid", "gpus", "reason", "since", "alive_at", "starts", "log", "progress"),
        *("hung_seconds", "stale", "failed_on", "followers", "meeting_port"),
    }
)


def report_engine(store: Store, engine: EngineReport) -> None:
    """Write a launcher's report; tell whoever watches if it changes their work."""
    values = dataclasses.asdict(engine)
    needed = {name: values[name] for name in values if name not in NOT_NEEDED}
    told = json.dumps(values), json.dumps(needed)
    _write(store, engine.id, *told, engine.incarnation)


def remove_engine(store: Store, engine: str) -> None:
    """Forget an engine that is wanted no longer and has ended."""
    with store.client.pipeline() as pipe:
        pipe.hdel(store.keys.metrics, engine)
        pipe.delete(store.keys.samples(engine), store.keys.counters(engine))
        pipe.delete(store.keys.canaries(engine))
        pipe.execute()
    _write(store, engine, "", "")


def _write(
    store: Store, engine: str, report: str, needed: str, incarnation: int = 0
) -> None:
    keys = store.keys
    names = [
        *(keys.engines, keys.engines_needed, keys.engine_versions),
        *(keys.engines_version, keys.changed, keys.incarnations),
    ]
    values = (engine, report, needed, incarnation)
    store.run_script(state_scripts.REPORT_ENGINE, names, *values)


def next_incarnation(store: Store, engine: str, last: int = 0) -> int:
    """Count one more start of this engine, beyond the ``last`` that is known."""
    keys = [store.keys.incarnations]
    script = state_scripts.NEXT_INCARNATION
    return int(store.run_script(script, keys, engine, last))


def read_engines(store: Store) -> dict[str, EngineReport]:
    """The launchers' last reports, by engine, dead hosts' engines included."""
    values = store.run("HGETALL", store.keys.engines)
    return read_each(
        store, "report of engine", dict(sorted(values.items())), decode_engine
    )


def decode_engine(value: str | bytes) -> EngineReport:
    """An engine's report from its JSON; ignores what a newer launcher adds."""
    return decode(EngineReport, json.loads(value))
