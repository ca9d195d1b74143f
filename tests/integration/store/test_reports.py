"""Launchers' reports: workers hear of what changes their work, and of nothing else."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from modelserver.messaging.wire import CatalogueSource
from modelserver.store.fleet.control import read_wishes
from modelserver.store.fleet.engines import (
    next_incarnation,
    read_engines,
    remove_engine,
    report_engine,
)
from modelserver.store.fleet.measurements import (
    read_canaries,
    read_metrics,
    read_samples,
)
from modelserver.values import (
    Cause,
    EngineReport,
    EngineSpec,
    EngineState,
    Outcome,
    Wish,
)
from tests.support.processes import ValkeyProcess
from tests.support.workers import HOST, PATIENCE, FleetSite, open_fleet
from workers.engines.fallbacks import Fallbacks
from workers.engines.fleet_follower import FleetFollower
from workers.engines.roster import Roster

ENGINE = EngineReport("writer-0", "writer", HOST, EngineState.READY, 1, limit=4)


@pytest.fixture
def site(tmp_path: Path, valkey: ValkeyProcess) -> Iterator[FleetSite]:
    with open_fleet(tmp_path, valkey.url) as site:
        yield site


def test_only_what_changes_the_work_of_workers_rings(site: FleetSite):
    store = site.store
    with store.client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(store.keys.changed)
        heard.get_message(timeout=PATIENCE)
        report_engine(store, ENGINE)
        for second in range(5):
            report_engine(store, replace(ENGINE, alive_at=float(second), reason="r"))
        report_engine(store, replace(ENGINE, limit=3))
        remove_engine(store, ENGINE.id)
        rung = []
        while message := heard.get_message(timeout=0.2):
            rung.append(message["data"])
    assert rung == [ENGINE.id] * 3


def test_a_worker_reads_what_changed(site: FleetSite):
    async def follow() -> None:
        client, roster = Redis.from_url(site.settings.redis_url), Roster(HOST)
        follower = FleetFollower(
            client,
            site.settings,
            CatalogueSource(site.settings),
            roster,
            Fallbacks(roster),
            lambda queue: None,
        )
        for number in range(20):
            report_engine(site.store, replace(ENGINE, id=f"writer-{number}"))
        await follower.look()
        assert roster.capacity("writer") == 80
        site.store.client.config_resetstat()
        report_engine(site.store, replace(ENGINE, limit=1))
        remove_engine(site.store, "writer-1")
        report_engine(site.store, replace(ENGINE, id="writer-2", host="h2"))
        report_engine(site.store, replace(ENGINE, id="writer-3", alive_at=9.0))
        await follower.look()
        assert roster.capacity("writer") == 1 + 17 * 4
        assert "cmdstat_hgetall" not in site.store.client.info("commandstats")
        site.store.client.flushdb()  # A store that lost its data.
        report_engine(site.store, ENGINE)
        await follower.look()
        assert roster.capacity("writer") == 4
        await client.aclose()

    asyncio.run(follow())
    assert read_engines(site.store) == {ENGINE.id: ENGINE}


def test_hosts_without_a_worker_are_passed_nothing_on(site: FleetSite):
    client, there = site.store.client, replace(ENGINE, host="h2")

    async def follow() -> list[bool]:
        roster = Roster(HOST)
        follower = FleetFollower(
            *(Redis.from_url(site.settings.redis_url), site.settings),
            *(CatalogueSource(site.settings), roster, Fallbacks(roster)),
            lambda queue: None,
        )
        found = []
        for reports, is_there in ((4, True), (3, False), (2, False), (1, True)):
            client.flushdb()  # With fewer changes than before all is read.
            if is_there:
                client.sadd(site.store.keys.workers, "w")
                client.set(site.store.keys.worker("w"), '{"host": "h2"}')
            for number in range(reports):
                report_engine(site.store, replace(there, limit=number))
            await follower.look()
            found.append(bool(roster.elsewhere["writer"]))
        await follower.client.aclose()
        return found

    # One may have come up since: not at the first look.
    assert asyncio.run(follow()) == [True, True, False, True]


def test_starts_are_counted_on_from_what_launchers_report(site: FleetSite):
    store = site.store
    report_engine(store, replace(ENGINE, incarnation=7))
    assert next_incarnation(store, ENGINE.id) == 8
    store.client.flushdb()
    report_engine(store, replace(ENGINE, incarnation=8))
    report_engine(store, replace(ENGINE, incarnation=3))
    assert next_incarnation(store, ENGINE.id) == 9
    # The launcher knows of a start before it has reported it.
    store.client.flushdb()
    assert next_incarnation(store, ENGINE.id, last=9) == 10
    assert next_incarnation(store, ENGINE.id, last=4) == 11


def test_reports_of_a_newer_launcher_are_read_as_far_as_they_are_known(site: FleetSite):
    store = site.store
    newer = {**dataclasses.asdict(ENGINE), "state": "COMPACTING", "colour": "blue"}
    store.client.hset(store.keys.engines, ENGINE.id, json.dumps(newer))
    unknown = read_engines(store)[ENGINE.id]
    assert (unknown.state, unknown.serves) == (EngineState.UNKNOWN, False)
    assert replace(unknown, state=ENGINE.state) == ENGINE
    store.client.hset(store.keys.metrics, ENGINE.id, "[1, 0.5, 0.1, 9.0, 7]")
    assert read_metrics(store)[ENGINE.id].waiting == 1
    store.client.lpush(store.keys.canaries(ENGINE.id), "[1, 9.0, 0.5, false, 2, 7]")
    assert read_canaries(store)[ENGINE.id][0].round == 2
    sample = '[1, 9.0, 0.5, 8, 2, 1, 1, 8, "ok", 7]'
    store.client.lpush(store.keys.samples(ENGINE.id), sample)
    assert read_samples(store, ENGINE.id)[0].outcome is Outcome.OK
    wish = {**dataclasses.asdict(Wish(EngineSpec("m-0", "m", "a"))), "cause": "bored"}
    store.client.hset(store.keys.desired, "m-0", json.dumps(wish))
    assert read_wishes(store)["m-0"].cause is Cause.NONE


def test_a_worker_passes_over_what_a_newer_version_wrote(site: FleetSite):
    """One record that it cannot read keeps it from no other."""
    store = site.store
    report_engine(store, ENGINE)
    store.client.hset(store.keys.engines, "writer-9", '{"name": "writer-9"}')
    store.client.sadd(store.keys.workers, "odd")
    store.client.set(store.keys.worker("odd"), "[]")
    down = {"standing": "down", "then": "park", "reason": "", "since": 0.0}
    store.client.set(store.keys.availability, json.dumps({"writer": down, "odd": 7}))

    async def follow() -> int:
        client, roster = Redis.from_url(site.settings.redis_url), Roster(HOST)
        follower = FleetFollower(
            *(client, site.settings, CatalogueSource(site.settings)),
            *(roster, Fallbacks(roster), lambda queue: None),
        )
        await follower.look()
        await client.aclose()
        return roster.capacity("writer")

    assert asyncio.run(follow()) == ENGINE.limit
