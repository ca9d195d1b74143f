"""What one look of control at a whole fleet costs, and what the store keeps for it."""

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.machine import Server
from benchmarks.report import Cell, Goal, Report
from modelserver.control.steer import steer
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import ModelSection, RedisSection
from modelserver.inventory import GIB, Gpu, GpuProcess, Host
from modelserver.measured import Canary, Metrics, Sample
from modelserver.messaging.wire import CatalogueSource
from modelserver.policy.health.memory import from_json, to_json
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.control import (
    HEALTH_MEMORY,
    hold_control,
    read_memory,
    read_wishes,
    write_wishes,
)
from modelserver.store.fleet.engines import read_engines, report_engine
from modelserver.store.fleet.hosts import report_host
from modelserver.store.fleet.measurements import (
    add_canaries,
    pack_sample,
    report_metrics,
)
from modelserver.store.keys import CANARIES_KEPT, SAMPLES_KEPT
from modelserver.store.server.connections import open_async
from modelserver.values import EngineReport, EngineState, Outcome
from workers.engines.fallbacks import Fallbacks
from workers.engines.fleet_follower import FleetFollower
from workers.engines.roster import Roster

#: Engines of a fleet; the last size has the goals.
SIZES = (10, 100, 500)
#: Models of each fleet.
MODELS = 5
#: GPUs of each host.
GPUS_PER_HOST = 8
#: Looks that are measured at each size.
REPEATS = 15
#: The most that a look may take, in milliseconds.
GOAL_MILLISECONDS = 500.0
#: The most that the store may keep for an engine, in bytes.
GOAL_BYTES = 20_000.0
#: Seconds between looks: a bit more than engines are judged apart.
TICK_SECONDS = 11.0


@dataclass(frozen=True, slots=True)
class Site:
    """A fleet whose engines, hosts and workers stand in the store only."""

    store: Store
    settings: Settings
    engines: int

    def look(self) -> float:
        """Milliseconds of one look."""
        began = time.perf_counter()
        steer(self.store, self.settings, "bench")
        return (time.perf_counter() - began) * 1000

    def judging_look(self) -> float:
        """The same, at a time when verdicts are due."""
        memory = from_json(read_memory(self.store)[HEALTH_MEMORY])
        earlier = replace(
            memory,
            judged_at=memory.judged_at - TICK_SECONDS,
            limited_at=memory.limited_at - TICK_SECONDS,
        )
        with hold_control(self.store, "past", 60) as token:
            write_wishes(self.store, token, {}, {HEALTH_MEMORY: to_json(earlier)})
        return self.look()

    def deciding_look(self) -> float:
        """The same, with a decision, so that all that was seen is kept."""
        with hold_control(self.store, "past", 60) as token:
            write_wishes(self.store, token, {"m0-0": None})
        return self.judging_look()

    def bytes_of(self, *parts: str) -> int:
        """Memory of the keys with one of these parts in their name, or of all."""
        total = 0
        for key in self.store.client.scan_iter(f"{self.store.keys.prefix}*"):
            if not parts or any(part in key for part in parts):
                usage = self.store.client.memory_usage(key, samples=0)
                total += int(usage or 0)
        return total


def control() -> Report:
    """Milliseconds of one look at 10, 100 and 500 engines, and bytes for each engine.

    Each engine has its full number of samples and canaries, and requests in flight. A
    real server is on the same machine. Three looks: one between verdicts, one with
    verdicts about all engines, one that also gives an engine a place, and so keeps all
    that it saw.
    """
    rows: list[tuple[Cell, ...]] = []
    judging = each_bytes = 0.0
    notes: list[str] = []
    for engines in SIZES:
        with _site(engines) as site:
            site.look(), site.judging_look()
            looks = {
                "between verdicts": [site.look() for _ in range(REPEATS)],
                "with verdicts": [site.judging_look() for _ in range(REPEATS)],
                "with a decision": [site.deciding_look() for _ in range(REPEATS)],
                **worker_looks(site),
            }
            aside = site.bytes_of("control:snapshots", "decisions")
            each_bytes = (site.bytes_of() - aside) / engines
            notes.append(_sizes(site, aside))
        for name, times in looks.items():
            middle = statistics.median(times)
            rows.append((name, engines, middle, min(times), max(times), each_bytes))
        judging = statistics.median(looks["with verdicts"])
    size = SIZES[-1]
    goals = (
        Goal(f"look at {size} engines", judging, GOAL_MILLISECONDS, "ms", True),
        Goal(f"store at {size} engines", each_bytes, GOAL_BYTES, "B/engine", True),
    )
    columns = ("look", "engines", "median ms", "least ms", "most ms", "B/engine")
    notes.append(f"{REPEATS} looks of each kind; the log of decisions is not counted")
    return Report(columns, tuple(rows), goals, tuple(notes))


def worker_looks(site: Site) -> dict[str, list[float]]:
    """Milliseconds that a worker is kept by the reports of all engines.

    Once while nothing changes for workers, once with one engine held and released.
    """
    return asyncio.run(_worker_looks(site))


async def _worker_looks(site: Site) -> dict[str, list[float]]:
    url, settings = site.settings.redis_url, site.settings
    client, roster = open_async(url, 4), Roster("h0")
    follower = FleetFollower(
        *(client, settings, CatalogueSource(settings), roster, Fallbacks(roster)),
        lambda queue: None,
    )
    await follower.look()
    reports = list(read_engines(site.store).values())

    async def look(changed: int) -> float:
        for place, report in enumerate(reports):
            hold = "bench" if place < changed else ""
            at = report.alive_at + random.random()
            report_engine(site.store, replace(report, alive_at=at, hold=hold))
        began = time.perf_counter()
        await follower.look()
        return (time.perf_counter() - began) * 1000

    unchanged = [await look(0) for _ in range(REPEATS)]
    one = [await look(place % 2) for place in range(REPEATS)]
    await client.aclose()
    return {"worker, unchanged": unchanged, "worker, one changed": one}


def _sizes(site: Site, aside: int) -> str:
    memory = site.bytes_of("control:memory")
    samples = site.bytes_of("samples:")
    number = max(1, int(site.store.client.xlen(site.store.keys.snapshots)))
    return (
        f"{site.engines} engines: samples {samples / site.engines:,.0f} B for each, "
        f"what control remembers {memory:,} B in all, {number} snapshots kept with "
        f"their decisions {aside:,} B"
    )


@contextmanager
def _site(engines: int) -> Iterator[Site]:
    """A fleet on a server of its own, whose engines are where control wants them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, store = Server(folder / "valkey").start(), None
        try:
            settings = _settings(server.url, folder, engines)
            store = connect(settings)
            site = Site(store, settings, engines)
            _report_hosts(site, {})
            steer(store, settings, "bench")
            _report_engines(site)
            yield site
        finally:
            if store is not None:
                store.client.close()
            server.stop()


def _settings(url: str, folder: Path, engines: int) -> Settings:
    models = tuple(
        ModelSection(
            name=f"m{n}",
            path="/m",
            gpus=1,
            min_engines=engines // MODELS,
        )
        for n in range(MODELS)
    )
    fleet = Fleet(models=models, redis=RedisSection(url=url))
    return Settings(fleet, folder / "fleet.toml", folder, "bench")


def _report_hosts(site: Site, held: dict[str, str]) -> None:
    for host in range(-(-site.engines // GPUS_PER_HOST)):
        gpus = tuple(_gpu(f"GPU-{host}-{n}", n, held) for n in range(GPUS_PER_HOST))
        report_host(site.store, Host(f"h{host}", gpus), lease_seconds=3600)


def _gpu(uuid: str, index: int, held: dict[str, str]) -> Gpu:
    total = 80 * GIB
    used = 70 * GIB if uuid in held else 0
    by = (GpuProcess(4711, used, "me", "python", held[uuid]),) if used else ()
    return Gpu(
        index, uuid, "H100", total=total, used=used, free=total - used, processes=by
    )


def _report_engines(site: Site) -> None:
    """Let every engine serve, with a full history, and a worker have requests on it."""
    store, now, draw = site.store, site.store.now(), random.Random(0)
    wishes = read_wishes(store)
    assert len(wishes) == site.engines, f"{len(wishes)} of {site.engines} have a place"
    held = {uuid: name for name, wish in wishes.items() for uuid in wish.spec.uuids}
    _report_hosts(site, held)
    loads = {}
    for name, wish in wishes.items():
        spec = wish.spec
        index = int(spec.uuids[0].rpartition("-")[2])
        engine = EngineReport(
            name, spec.model, spec.host, EngineState.READY, 1, gpus=(index,)
        )
        report_engine(store, replace(engine, since=now - 900, alive_at=now + 3600))
        for sample in _samples(name, now, draw):
            store.client.lpush(
                store.keys.samples(name), json.dumps(pack_sample(sample))
            )
        store.client.hset(store.keys.counters(name), "ok", 5000)
        numbers = range(CANARIES_KEPT)
        add_canaries(store, [Canary(name, 1, now, 0.5, n % 4 == 0) for n in numbers])
        loads[name] = (20, 3.0, 0.2)
    report_metrics(store, {name: Metrics(0, 0.4, 0.02, now) for name in wishes})
    _report_worker(site, loads)


def _samples(engine: str, now: float, draw: random.Random) -> Iterator[Sample]:
    for number in range(SAMPLES_KEPT):
        prompt, tokens = draw.randint(50, 2000), draw.randint(10, 500)
        seconds = (0.2 + 0.0001 * prompt + 0.01 * tokens) * draw.gauss(1, 0.05)
        ended = now - 60 + number * 0.9
        values = (engine, 1, ended, seconds, prompt, tokens, 20, 20, 5 * prompt)
        yield Sample(*values, Outcome.OK)


def _report_worker(site: Site, loads: dict[str, tuple[int, float, float]]) -> None:
    keys = site.store.keys
    report = {"host": "h0", "pid": 1, "loads": loads}
    site.store.client.sadd(keys.workers, "w")
    site.store.client.set(keys.worker("w"), json.dumps(report), ex=3600)
