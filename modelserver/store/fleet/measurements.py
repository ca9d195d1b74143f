"""What is measured of engines: samples of their requests, canaries, their metrics."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, fields
from typing import Any, TypeVar

import orjson

from modelserver.measured import Canary, Metrics, Sample
from modelserver.store.keys import CANARIES_KEPT, SAMPLES_SECONDS
from modelserver.store.server.state import Store
from modelserver.store.server.versions import UNREADABLE, note_unreadable, read_each
from modelserver.values import Outcome

_T = TypeVar("_T")

#: The counter of answers that max_tokens ended, of an engine and of a model.
CUT_OFF = "cut_off"
#: The counters of requests that an engine answered, or rightly refused.
ANSWERED = (Outcome.OK.value, Outcome.REQUEST_FAULT.value)
#: Values of a sample without its engine; newer workers may add some.
SAMPLE_VALUES = 9
#: Values of a canary without its engine; newer launchers may add some.
CANARY_VALUES = len(fields(Canary)) - 1
#: Values of an engine's metrics; newer launchers may add some.
METRICS_VALUES = len(fields(Metrics))
#: By value: a look at 500 engines asks for 32,000 of them.
_OUTCOMES = {each.value: each for each in Outcome}


def pack_sample(sample: Sample) -> list[Any]:
    """A sample as the short list that is stored; the engine is in the key."""
    return [
        sample.incarnation,
        round(sample.ended_at, 3),
        round(sample.seconds, 4),
        sample.prompt_tokens,
        sample.completion_tokens,
        sample.inflight_start,
        sample.inflight_end,
        sample.prompt_admitted,
        sample.outcome.value,
    ]


def unpack_sample(engine: str, packed: list[Any]) -> Sample:
    """The reverse of pack_sample."""
    *known, told = packed[:SAMPLE_VALUES]
    # What a newer worker recorded and we do not know says nothing.
    values: list[Any] = [engine, *known, _OUTCOMES.get(told, Outcome.CANCELLED)]
    return Sample(*values)


def read_all_samples(
    store: Store, engines: Sequence[str]
) -> dict[str, tuple[Sample, ...]]:
    """Each engine's last requests, newest first, in one round trip."""
    keys = {engine: store.keys.samples(engine) for engine in engines}
    return _lists(store, keys, unpack_sample)


def read_samples(store: Store, engine: str) -> tuple[Sample, ...]:
    """An engine's last requests, newest first, at most SAMPLES_KEPT."""
    return read_all_samples(store, [engine])[engine]


def add_canaries(store: Store, canaries: Iterable[Canary]) -> None:
    """Keep them, given oldest first; an engine's oldest make room."""
    with store.client.pipeline() as pipe:
        for canary in canaries:
            key = store.keys.canaries(canary.engine)
            pipe.lpush(key, json.dumps(_packed(canary)))
            pipe.ltrim(key, 0, CANARIES_KEPT - 1)
            pipe.expire(key, SAMPLES_SECONDS)
        pipe.execute()


def read_canaries(store: Store) -> dict[str, tuple[Canary, ...]]:
    """Each reported engine's last canaries, newest first, by engine."""
    engines = sorted(store.run("HKEYS", store.keys.engines))
    keys = {engine: store.keys.canaries(engine) for engine in engines}
    return _lists(store, keys, _unpack_canary)


def _unpack_canary(engine: str, packed: list[Any]) -> Canary:
    return Canary(engine, *packed[:CANARY_VALUES])


def _packed(canary: Canary) -> list[Any]:
    at, seconds = round(canary.at, 3), round(canary.seconds, 4)
    return [canary.incarnation, at, seconds, canary.loaded, canary.round]


def report_metrics(store: Store, metrics: Mapping[str, Metrics | None]) -> None:
    """Say what engines tell of themselves; None where one tells nothing any more."""
    with store.client.pipeline() as pipe:
        for engine, values in metrics.items():
            if values is None:
                pipe.hdel(store.keys.metrics, engine)
            else:
                pipe.hset(store.keys.metrics, engine, json.dumps(astuple(values)))
        pipe.execute()


def read_metrics(store: Store) -> dict[str, Metrics]:
    """What engines told of themselves in the last seconds, by engine."""
    values: Any = store.client.hgetall(store.keys.metrics)
    return read_each(store, "metrics of", dict(sorted(values.items())), _unpack_metrics)


def _unpack_metrics(text: str) -> Metrics:
    return Metrics(*json.loads(text)[:METRICS_VALUES])


def read_counters(store: Store, engine: str) -> dict[str, int]:
    """An engine's totals: requests by outcome, tokens, answers that were cut off."""
    return read_all_counters(store, [engine])[engine]


def read_all_counters(
    store: Store, engines: Sequence[str]
) -> dict[str, dict[str, int]]:
    """The same of several engines in one round trip."""
    found = _hashes(store, [store.keys.counters(engine) for engine in engines])
    return dict(zip(engines, found, strict=True))


def read_model_times(store: Store, models: Sequence[str]) -> dict[str, dict[str, int]]:
    """What is counted of each model: times of its requests, answers cut off."""
    found = _hashes(store, [store.keys.model_times(model) for model in models])
    return dict(zip(models, found, strict=True))


def _hashes(store: Store, keys: Sequence[str]) -> list[dict[str, int]]:
    with store.client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        found = pipe.execute()
    return [{name: int(value) for name, value in each.items()} for each in found]


def count_finished(store: Store, engines: Sequence[str]) -> dict[str, int]:
    """How many requests each engine has dealt with since it is known."""
    with store.client.pipeline(transaction=False) as pipe:
        for engine in engines:
            pipe.hmget(store.keys.counters(engine), *ANSWERED)
        counts = pipe.execute()
    return {
        engine: sum(int(count or 0) for count in each)
        for engine, each in zip(engines, counts, strict=True)
    }


def _lists(
    store: Store, keys: Mapping[str, str], unpack: Callable[[str, list[Any]], _T]
) -> dict[str, tuple[_T, ...]]:
    """By engine what stands in its list, but for what cannot be read."""
    with store.client.pipeline(transaction=False) as pipe:
        for key in keys.values():
            pipe.lrange(key, 0, -1)
        lists: list[list[str]] = pipe.execute()
    found = {}
    for engine, values in zip(keys, lists, strict=True):
        try:
            # Read as one text: of 500 engines that saves a tenth of a second.
            packed = orjson.loads(f"[{','.join(values)}]")
            found[engine] = tuple(unpack(engine, each) for each in packed)
        except UNREADABLE as error:
            note_unreadable(store, f"measurements of {engine}", error)
            found[engine] = tuple(_one_by_one(engine, values, unpack))
    return found


def _one_by_one(
    engine: str, values: Iterable[str], unpack: Callable[[str, list[Any]], _T]
) -> Iterator[_T]:
    for value in values:
        with suppress(*UNREADABLE):
            yield unpack(engine, orjson.loads(value))
