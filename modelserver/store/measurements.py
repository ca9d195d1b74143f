"""What is measured of engines: samples of their requests, canaries, their metrics."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import orjson
import redis

from modelserver.store.keys import CANARIES_KEPT, SAMPLES_SECONDS, Keys
from modelserver.values import Canary, Metrics, Outcome, Sample

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


def read_sample(engine: str, packed: list[Any]) -> Sample:
    """The reverse of pack_sample."""
    values: list[Any] = [engine, *packed[:-1], _OUTCOMES[packed[-1]]]
    return Sample(*values)


def all_samples(
    client: redis.Redis, keys: Keys, engines: Sequence[str]
) -> dict[str, tuple[Sample, ...]]:
    """Each engine's last requests, newest first, in one round trip."""
    lists = _ranges(client, [keys.samples(engine) for engine in engines])
    return {
        engine: tuple(read_sample(engine, each) for each in values)
        for engine, values in zip(engines, lists, strict=True)
    }


def add_canaries(client: redis.Redis, keys: Keys, canaries: Iterable[Canary]) -> None:
    """Keep them, given oldest first; an engine's oldest make room."""
    with client.pipeline() as pipe:
        for canary in canaries:
            key = keys.canaries(canary.engine)
            pipe.lpush(key, json.dumps(_packed(canary)))
            pipe.ltrim(key, 0, CANARIES_KEPT - 1)
            pipe.expire(key, SAMPLES_SECONDS)
        pipe.execute()


def read_canaries(
    client: redis.Redis, keys: Keys, engines: Sequence[str]
) -> dict[str, tuple[Canary, ...]]:
    """Each engine's last canaries, newest first, in one round trip."""
    lists = _ranges(client, [keys.canaries(engine) for engine in engines])
    return {
        engine: tuple(Canary(engine, *each) for each in values)
        for engine, values in zip(engines, lists, strict=True)
    }


def _packed(canary: Canary) -> list[Any]:
    at, seconds = round(canary.at, 3), round(canary.seconds, 4)
    return [canary.incarnation, at, seconds, canary.loaded, canary.round]


def report_metrics(
    client: redis.Redis, keys: Keys, metrics: Mapping[str, Metrics | None]
) -> None:
    """Say what engines tell of themselves; None where one tells nothing any more."""
    with client.pipeline() as pipe:
        for engine, values in metrics.items():
            if values is None:
                pipe.hdel(keys.metrics, engine)
            else:
                pipe.hset(keys.metrics, engine, json.dumps(astuple(values)))
        pipe.execute()


def read_metrics(client: redis.Redis, keys: Keys) -> dict[str, Metrics]:
    """What engines told of themselves in the last seconds, by engine."""
    values: Any = client.hgetall(keys.metrics)
    return {key: Metrics(*json.loads(each)) for key, each in sorted(values.items())}


def _ranges(client: redis.Redis, keys: Sequence[str]) -> list[list[Any]]:
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.lrange(key, 0, -1)
        # Read as one text: of 500 engines that saves a tenth of a second.
        return [orjson.loads(f"[{','.join(values)}]") for values in pipe.execute()]
