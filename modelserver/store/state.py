"""The fleet's state in Redis, for launcher, control and command line (blocking)."""

import dataclasses
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from modelserver.decoding import decode
from modelserver.errors import StoreUnreachableError
from modelserver.fleet import plain_url
from modelserver.inventory import Host
from modelserver.settings import Settings
from modelserver.store import measurements, scripts
from modelserver.store.connections import blocking
from modelserver.store.keys import Keys
from modelserver.values import (
    Canary,
    EngineLoad,
    EngineReport,
    Metrics,
    Outcome,
    Sample,
    Wish,
)

_T = TypeVar("_T")

#: Decisions kept in the stream.
DECISIONS_KEPT = 10_000
#: Counters of the requests that an engine has dealt with.
ANSWERED = (Outcome.OK.value, Outcome.REQUEST_FAULT.value)
#: What is kept of control is deflated; a higher level costs more and saves little.
DEFLATE_LEVEL = 1
#: An option of redis-py: the reply as bytes, for values that are no text.
RAW = {NEVER_DECODE: True}


def connect(settings: Settings) -> "Store":
    """Open the fleet's state. Raises StoreUnreachableError with the remedy."""
    url = settings.redis_url
    client: redis.Redis = redis.Redis.from_url(
        url,
        connection_class=blocking(url),
        decode_responses=True,
        socket_connect_timeout=5,
        socket_timeout=10,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
    )
    store = Store(client, Keys(settings.fleet.redis.prefix), url=plain_url(url))
    with store.reachable():
        client.ping()
    return store


class Store:
    """One connection pool to the fleet's state. Times are the server's clock."""

    def __init__(self, client: redis.Redis, keys: Keys, url: str = "") -> None:
        self.client = client
        self.keys = keys
        self.url = url

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Turn a lost connection into StoreUnreachableError."""
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StoreUnreachableError(
                f"Redis at {self.url} does not answer ({error}); start it, or correct "
                "redis.url in the fleet file or MODELSERVER_REDIS_URL"
            ) from error

    def now(self) -> float:
        """Seconds since the epoch by the server's clock, the same on all hosts."""
        seconds, micros = self._run("TIME")
        return int(seconds) + int(micros) / 1e6

    def server(self) -> tuple[str, str]:
        """The server's name ("redis" or "valkey") and version."""
        info: Any = self.client.info("server")
        name = str(info.get("server_name", "redis"))
        return name, str(info.get(f"{name}_version", info["redis_version"]))

    def _run(self, *command: Any, **options: Any) -> Any:
        return self.client.execute_command(*command, **options)

    def _script(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        return self.client.eval(script, len(keys), *keys, *arguments)

    # Hosts and engines: written by launchers.

    def report_host(self, host: Host, lease_seconds: float) -> None:
        """Renew a host's lease together with what it has."""
        with self.client.pipeline() as pipe:
            pipe.sadd(self.keys.hosts, host.name)
            pipe.set(
                self.keys.host(host.name),
                json.dumps(dataclasses.asdict(host)),
                px=int(lease_seconds * 1000),
            )
            pipe.execute()

    def leave(self, host: str) -> None:
        """End a host's lease at once."""
        with self.client.pipeline() as pipe:
            pipe.srem(self.keys.hosts, host)
            pipe.delete(self.keys.host(host))
            pipe.execute()

    def host(self, name: str) -> Host | None:
        """A live host by name."""
        value = self.client.get(self.keys.host(name))
        return read_host(str(value)) if value else None

    def hosts(self) -> tuple[Host, ...]:
        """The hosts whose lease lives, by name."""
        names = sorted(str(name) for name in self._run("SMEMBERS", self.keys.hosts))
        if not names:
            return ()
        values = self._run("MGET", *[self.keys.host(name) for name in names])
        return tuple(read_host(value) for value in values if value)

    def report_engine(self, engine: EngineReport) -> None:
        """Write a launcher's report and tell whoever watches."""
        with self.client.pipeline() as pipe:
            value = json.dumps(dataclasses.asdict(engine))
            pipe.hset(self.keys.engines, engine.id, value)
            pipe.publish(self.keys.changed, engine.id)
            pipe.execute()

    def remove_engine(self, engine: str) -> None:
        """Forget an engine that is wanted no longer and has ended."""
        with self.client.pipeline() as pipe:
            pipe.hdel(self.keys.engines, engine)
            pipe.hdel(self.keys.metrics, engine)
            pipe.delete(self.keys.samples(engine), self.keys.counters(engine))
            pipe.delete(self.keys.canaries(engine))
            pipe.publish(self.keys.changed, engine)
            pipe.execute()

    def next_incarnation(self, engine: str) -> int:
        """Count one more start of this engine."""
        return int(self._run("HINCRBY", self.keys.incarnations, engine, 1))

    def engines(self) -> dict[str, EngineReport]:
        """The launchers' last reports, by engine, dead hosts' engines included."""
        values = self._run("HGETALL", self.keys.engines)
        return {key: read_engine(value) for key, value in sorted(values.items())}

    # Wishes: written by control.

    @contextmanager
    def control(self, owner: str, seconds: float) -> Iterator[int]:
        """Hold the controller's lock; yields the fencing token, 0 if another has it."""
        keys = [self.keys.lock, self.keys.token]
        token = int(self._script(scripts.LOCK, keys, owner, int(seconds * 1000)))
        try:
            yield token
        finally:
            if token:
                self._script(scripts.UNLOCK, keys[:1], owner)

    def wishes(self) -> dict[str, Wish]:
        """What control wants, by engine."""
        values = self._run("HGETALL", self.keys.desired)
        return {key: _read_wish(value) for key, value in sorted(values.items())}

    def wish(
        self,
        token: int,
        wishes: Mapping[str, Wish | None],
        memory: Mapping[str, str] | None = None,
    ) -> bool:
        """Write wishes (None deletes), and parts of control's memory with them.

        Writes neither, and returns False, if a newer controller has come.
        """
        pairs: list[str | bytes] = []
        for engine, wish in wishes.items():
            value = json.dumps(dataclasses.asdict(wish)) if wish else ""
            pairs += [engine, value]
        for part, text in (memory or {}).items():
            pairs += [part, zlib.compress(text.encode(), DEFLATE_LEVEL)]
        keys = [self.keys.token, self.keys.desired, self.keys.changed, self.keys.memory]
        return bool(self._script(scripts.WISH, keys, token, len(wishes), *pairs))

    def memory(self) -> dict[str, str]:
        """What control remembers, by part."""
        values: dict[bytes, bytes] = self._run("HGETALL", self.keys.memory, **RAW)
        return {
            part.decode(): zlib.decompress(value).decode()
            for part, value in values.items()
        }

    def report_steered(self, owner: str) -> None:
        """Leave a sign that control has looked at the fleet now."""
        self.client.set(self.keys.steered, json.dumps([self.now(), owner]))

    def steered(self) -> tuple[float, str]:
        """When control last looked at the fleet, and who; (0, "") if it never did."""
        value = self.client.get(self.keys.steered)
        at, owner = json.loads(str(value)) if value else (0.0, "")
        return at, owner

    def report_waiting(self, waiting: Mapping[str, str]) -> None:
        """Say which engines have no place now, and why; replaces what was said."""
        with self.client.pipeline() as pipe:
            pipe.delete(self.keys.waiting)
            if waiting:
                pairs = [part for pair in waiting.items() for part in pair]
                pipe.hset(self.keys.waiting, items=pairs)
            pipe.execute()

    def waiting(self) -> dict[str, str]:
        """Why control found no place for an engine, by engine."""
        return dict(sorted(self._run("HGETALL", self.keys.waiting).items()))

    def log_decision(self, fields: Mapping[str, str]) -> None:
        """Append one decision and what it was made from."""
        self.client.xadd(
            self.keys.decisions,
            dict(fields),  # type: ignore[arg-type]
            maxlen=DECISIONS_KEPT,
            approximate=True,
        )

    # Workers and requests: written by workers, see delivery.

    def loads(self) -> dict[str, EngineLoad]:
        """What the live workers have in flight, summed by engine."""
        total: dict[str, EngineLoad] = {}
        for report in self.workers().values():
            for engine, (inflight, oldest, idle) in report["loads"].items():
                seen = total.get(engine, EngineLoad(0, 0.0, idle))
                total[engine] = EngineLoad(
                    seen.inflight + inflight,
                    max(seen.oldest_seconds, oldest),
                    min(seen.idle_seconds, idle),
                )
        return total

    def workers(self) -> dict[str, dict[str, Any]]:
        """The reports of the workers whose lease lives, by worker."""
        names = sorted(self._run("SMEMBERS", self.keys.workers))
        if not names:
            return {}
        values = self._run("MGET", *[self.keys.worker(name) for name in names])
        pairs = zip(names, values, strict=True)
        return {name: json.loads(value) for name, value in pairs if value}

    def samples(self, engine: str) -> tuple[Sample, ...]:
        """An engine's last requests, newest first, at most SAMPLES_KEPT."""
        return self.all_samples([engine])[engine]

    def all_samples(self, engines: Sequence[str]) -> dict[str, tuple[Sample, ...]]:
        """The same of several engines in one round trip."""
        return measurements.all_samples(self.client, self.keys, engines)

    # Canaries and metrics: written by launchers.

    def add_canaries(self, canaries: Sequence[Canary]) -> None:
        """Keep what canaries took, given oldest first."""
        measurements.add_canaries(self.client, self.keys, canaries)

    def canaries(self) -> dict[str, tuple[Canary, ...]]:
        """Each reported engine's last canaries, newest first, by engine."""
        engines = sorted(self._run("HKEYS", self.keys.engines))
        return measurements.read_canaries(self.client, self.keys, engines)

    def report_metrics(self, metrics: Mapping[str, Metrics | None]) -> None:
        """Say what engines tell of themselves now; None deletes."""
        measurements.report_metrics(self.client, self.keys, metrics)

    def metrics(self) -> dict[str, Metrics]:
        """What engines with requests tell of themselves, by engine."""
        return measurements.read_metrics(self.client, self.keys)

    def counters(self, engine: str) -> dict[str, int]:
        """An engine's totals: requests by outcome, prompt and completion tokens."""
        values = self._run("HGETALL", self.keys.counters(engine))
        return {key: int(value) for key, value in values.items()}

    def finished(self, engines: Sequence[str]) -> dict[str, int]:
        """How many requests each engine has dealt with since it is known."""
        with self.client.pipeline(transaction=False) as pipe:
            for engine in engines:
                pipe.hmget(self.keys.counters(engine), *ANSWERED)
            counts = pipe.execute()
        return {
            engine: sum(int(count or 0) for count in each)
            for engine, each in zip(engines, counts, strict=True)
        }

    def backlog(self, queue: str) -> int:
        """Requests that wait in a queue, all priorities."""
        return int(self._script(scripts.DEPTH, self.keys.queue(queue)))

    def backlogs(self, queues: Sequence[str]) -> dict[str, int]:
        """The same of several queues in one round trip."""
        with self.client.pipeline(transaction=False) as pipe:
            for queue in queues:
                lists = self.keys.queue(queue)
                pipe.eval(scripts.DEPTH, len(lists), *lists)
            return dict(zip(queues, map(int, pipe.execute()), strict=True))

    def answers(self) -> dict[str, int]:
        """Totals: results stored, and late or repeated ones that were refused."""
        values = self._run("HGETALL", self.keys.answers)
        return {key: int(value) for key, value in values.items()}

    def publish_fleet(self, fleet: str, replaces: int) -> bool:
        """Write the applied fleet, as JSON, in place of version ``replaces``.

        False if another version stands there by now; see
        ``modelserver.control.applied_fleet``.
        """
        keys = [self.keys.fleet, self.keys.changed]
        return bool(self._script(scripts.PUBLISH_FLEET, keys, replaces, fleet))

    def fleet(self) -> str:
        """The applied fleet as JSON, "" before any program has brought one."""
        text = str(self.client.get(self.keys.fleet) or "")
        # Before there were versions, a list of models stood here.
        return text if '"version"' in text else ""


def read_host(value: str | bytes) -> Host:
    """A host's report from its JSON; ignores what a newer launcher adds."""
    return decode(Host, json.loads(value))


def read_engine(value: str | bytes) -> EngineReport:
    """An engine's report from its JSON; ignores what a newer launcher adds."""
    return decode(EngineReport, json.loads(value))


def _read_wish(value: str) -> Wish:
    fields = json.loads(value)
    if "drained" not in fields:  # Version 0.1 told by the text who holds an engine.
        fields["drained"] = fields.get("hold", "").startswith("drained by ")
    return decode(Wish, fields)
