"""A fleet that exists in the store alone: what launchers, workers and control write.

For what only reads the store: nothing runs but the server.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from modelserver.inventory import GIB, Gpu, GpuProcess, Host
from modelserver.measured import Sample
from modelserver.policy.health.memory import EngineMemory, HealthMemory, to_json
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.store.batch import SENT
from modelserver.store.fleet.alerts import AlertRecord
from modelserver.store.fleet.alerts import add as add_alert
from modelserver.store.fleet.api_keys import ApiKey, add_api_key
from modelserver.store.fleet.control import (
    HEALTH_MEMORY,
    hold_control,
    report_steered,
    write_wishes,
)
from modelserver.store.fleet.decisions import log_decision
from modelserver.store.fleet.engines import report_engine
from modelserver.store.fleet.hosts import report_host
from modelserver.store.fleet.measurements import pack_sample
from modelserver.store.runs.hosted import (
    HolderReport,
    SubmittedRun,
    add_hosted,
    renew_hosted,
    report_holder,
    take_hosted,
)
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Outcome,
    Wish,
    engine_id,
)

#: What has a lease keeps it for so long, in seconds: nobody renews it.
LEASE_SECONDS = 3600.0
#: The engines of one host.
ENGINES_A_HOST = 8
#: A name that would run a script, if a page did not escape it.
WICKED = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Records:
    """Writes them."""

    store: Store
    settings: Settings
    environment: dict[str, str]

    @classmethod
    def open(cls, folder: Path, url: str, models: Iterable[str]) -> "Records":
        """A fleet of these models."""
        sections = [f'[[models]]\nname = "{m}"\nengine = "external"\n' for m in models]
        path = folder / "fleet.toml"
        path.write_text(f'{"".join(sections)}[redis]\nurl = "{url}"\n')
        environment = {
            "MODELSERVER_FLEET": str(path),
            "MODELSERVER_HOME": str(folder / "home"),
            "MODELSERVER_HOST": "host-0",
        }
        settings = load(environment)
        return cls(connect(settings), settings, environment)

    def write(self, engines: int, runs: int = 1, alert: str = WICKED) -> None:
        """So many engines, spread over the models but the last, which has none."""
        models = [each.name for each in self.settings.fleet.models]
        names = [
            (models[n % max(1, len(models) - 1)], n // max(1, len(models) - 1))
            for n in range(engines)
        ]
        now, dice = self.store.now(), random.Random(7)
        reports = [self._report(n, *name, now) for n, name in enumerate(names)]
        self._hosts(reports)
        self._wishes(reports)
        for report in reports:
            report_engine(self.store, report)
            self._requests(report, now, dice)
        self._workers(reports)
        self._judgements(reports, alert, now)
        for model in models:
            number = 120 if model == models[-1] else dice.randrange(40)
            for age in range(number, 0, -1):
                message = orjson.dumps({"headers": {SENT: now - age}})
                self.store.client.lpush(self.store.keys.queue(model)[0], message)
        for number in range(runs):
            self._run(number, models[0], now)
        add_api_key(self.store, ApiKey("pipelines", daily_tokens=5_000_000))
        add_api_key(self.store, ApiKey("web", (models[0],), rpm=600))
        books = self.store.keys.books("web", _day(now))
        used = {"tokens": 81_234, f"requests:{models[0]}": 512}
        used |= {f"prompt:{models[0]}": 61_000, f"completion:{models[0]}": 20_234}
        self.store.client.hset(books, mapping=used)
        self.store.client.sadd(self.store.keys.in_books, "web")

    def _report(self, n: int, model: str, number: int, now: float) -> EngineReport:
        is_starting = n == 1
        return EngineReport(
            engine_id(model, number),
            model,
            f"host-{n // ENGINES_A_HOST}",
            EngineState.STARTING if is_starting else EngineState.READY,
            incarnation=2 if is_starting else 1,
            url="" if is_starting else f"http://127.0.0.1:{30_000 + n}",
            limit=64,
            gpus=(n % ENGINES_A_HOST,),
            reason="asked for by ada" if is_starting else "",
            progress="loading weights 43 % (3/7 shards)" if is_starting else "",
            since=now - 40 - n,
            alive_at=now - 1,
            log=f"/var/log/{model}.log",
        )

    def _hosts(self, reports: Sequence[EngineReport]) -> None:
        for name in sorted({each.host for each in reports}):
            own = [each for each in reports if each.host == name]
            gpus = tuple(
                Gpu(
                    each.gpus[0],
                    f"GPU-{name}-{each.gpus[0]}",
                    "NVIDIA H100 80GB HBM3",
                    total=80 * GIB,
                    used=(70 if place % 3 else 78) * GIB,
                    utilization=0.7,
                    temperature=55 + 3 * place,
                    processes=(GpuProcess(10 + place, 66 * GIB, engine=each.id),),
                    xids=(79,) if place == 3 else (),
                    fault="XID 79: fallen off the bus" if place == 3 else "",
                )
                for place, each in enumerate(own)
            )
            report_host(
                self.store, Host(name, gpus, 4711, "570.86", busy=0.2), LEASE_SECONDS
            )

    def _wishes(self, reports: Sequence[EngineReport]) -> None:
        with hold_control(self.store, "records", 60) as token:
            wishes: dict[str, Wish | None] = {
                each.id: Wish(EngineSpec(each.id, each.model, each.host), token=token)
                for each in reports
            }
            memory = HealthMemory(
                {
                    each.id: EngineMemory(1, usual=0.31 if n == 2 else 0.02)
                    for n, each in enumerate(reports)
                }
            )
            write_wishes(self.store, token, wishes, {HEALTH_MEMORY: to_json(memory)})
        report_steered(self.store, "records")

    def _requests(self, report: EngineReport, now: float, dice: random.Random) -> None:
        slowness = 1 + 0.4 * (report.id.endswith("-2"))
        samples = [
            Sample(
                report.id,
                1,
                now - 0.9 * n,
                slowness * dice.lognormvariate(0.6, 0.35),
                400,
                120,
                8,
                8,
                2000,
                Outcome.ENGINE_FAULT if n == 9 else Outcome.OK,
            )
            for n in range(64)
        ]
        keys = self.store.keys
        packed = [json.dumps(pack_sample(each)) for each in samples]
        self.store.client.rpush(keys.samples(report.id), *packed)
        counters = {"ok": 9_000, "engine-fault": 1, "cut_off": 12}
        counters |= {"prompt_tokens": 3_600_000, "completion_tokens": 1_080_000}
        self.store.client.hset(keys.counters(report.id), mapping=counters)

    def _workers(self, reports: Sequence[EngineReport]) -> None:
        for host in sorted({each.host for each in reports}):
            loads = {e.id: [23, 4.2, 0.1] for e in reports if e.host == host}
            value = {"node": f"worker@{host}", "host": host, "pid": 99, "held": 60}
            name = f"worker-{host}"
            self.store.client.sadd(self.store.keys.workers, name)
            key = self.store.keys.worker(name)
            self.store.client.set(key, json.dumps(value | {"loads": loads}))

    def _judgements(
        self, reports: Sequence[EngineReport], told: str, now: float
    ) -> None:
        for n, each in enumerate(reports[:30]):
            values = {
                "engine": each.id,
                "action": ("want", "treat", "relaunch")[n % 3],
                "at": f"{now - 600 + 15 * n:.3f}",
                "model": each.model,
                "host": each.host,
                "reason": "slow: takes 1.62x of what its requests explain",
                "incarnation": "1",
                "residual": "0.482",
                "peers": "3",
                "inflight": "23",
            }
            log_decision(self.store, values)
        text = f"{reports[0].id}: {told}"
        alert = AlertRecord(reports[0].id, text, now, "stutter", "raised", now - 95)
        add_alert(self.store, alert)

    def _run(self, number: int, model: str, now: float) -> None:
        name, rows = f"run{number:012x}", 50_000
        run = SubmittedRun(
            name,
            f"/data/prompts-{number}.jsonl",
            f"/data/answers-{number}.jsonl",
            rows,
            host="host-0",
            user="ada",
            at=now - 900,
        )
        add_hosted(self.store, run)
        report_holder(self.store, HolderReport("batches-1", "host-0", 77, (name,)))
        incarnation, _ = take_hosted(self.store, name, "batches-1")
        tally = {"answered": 24_800, "failed": 12, "cut_off": 31}
        tokens = {"prompt_tokens": 9_900_000, "completion_tokens": 2_980_000}
        progress = {
            "models": {model: tally | tokens},
            "engines": {engine_id(model, 0): 24_800},
            "engines_in": {engine_id(model, 0): 9_900_000},
            "engines_out": {engine_id(model, 0): 2_980_000},
            "faults": {"request": 12},
            "rates": [41.5, 16_600.0, 4_980.0],
            "under_way": 512,
            "ready_engines": {model: [1, 2]},
        }
        renew_hosted(self.store, name, incarnation, {"progress": json.dumps(progress)})
        # Nobody renews its lease.
        until = int((now + LEASE_SECONDS) * 1000)
        self.store.client.hset(self.store.keys.hosted_run(name), "until", until)


def _day(now: float) -> str:
    return str(datetime.fromtimestamp(now, UTC).date())
