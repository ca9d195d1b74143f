"""A slow engine under load, on real parts: from the first late answer to being well."""

import itertools
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery.result import AsyncResult

from modelserver.policy.health.memory import (
    EngineMemory,
    Health,
    HealthMemory,
    from_json,
)
from modelserver.policy.replay import actions_to_json, look_from_json
from modelserver.store.fleet.control import read_memory
from modelserver.store.fleet.decisions import kept_look, last_decisions
from tests.support.fleets import Hosts, model, open_hosts
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import Publications, answers

#: A request on an engine that is well, and between two requests.
ANSWER_SECONDS, PAUSE_SECONDS = 0.4, 0.1
#: From a fault to its relaunch: verdicts come every ten seconds, and three are needed.
PATIENCE = 150.0


@contextmanager
def traffic(hosts: Hosts) -> Iterator[list[AsyncResult]]:
    """Requests all the time, whose results are collected here."""
    results: list[AsyncResult] = []
    over = threading.Event()

    def send() -> None:
        for number in itertools.count():
            results.append(hosts.complete.delay(f"request {number}", max_tokens=32))
            if over.wait(PAUSE_SECONDS):
                return

    sender = threading.Thread(target=send)
    hosts.complete  # noqa: B018  (made here, not by two threads at once)
    sender.start()
    try:
        yield results
    finally:
        over.set()
        sender.join()


def remembered(hosts: Hosts) -> HealthMemory:
    return from_json(read_memory(hosts.store).get("health", ""))


def of(hosts: Hosts, engine: str) -> EngineMemory:
    return remembered(hosts).engines[engine]


def is_calibrated(hosts: Hosts) -> bool:
    """Whether control knows what requests and canaries take where all is well."""
    memory = remembered(hosts)
    fitted = [kind.fit for kind in memory.types.values()]
    known = [
        each.baseline and each.canary_passed_at for each in memory.engines.values()
    ]
    return bool(fitted) and all(fitted) and len(known) == 3 and all(known)


def make_slow(url: str, times: float) -> None:
    body = json.dumps({"slow": times}).encode()
    request = urllib.request.Request(f"{url}/fault", body)
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200


def acted(hosts: Hosts, engine: str, action: str) -> list[dict[str, str]]:
    decisions = last_decisions(hosts.store, engine, 100)
    return [each for each in reversed(decisions) if each["action"] == action]


def test_a_slow_engine_is_drained_verified_and_relaunched_and_nothing_is_lost(
    valkey: ValkeyProcess, tmp_path: Path
):
    three = model("m", "--latency", str(ANSWER_SECONDS), min_engines=3)
    with open_hosts(tmp_path, valkey.url, three) as hosts:
        hosts.launch("a")
        hosts.worker("a")
        for name in ("m-0", "m-1", "m-2"):
            hosts.ready(name)
        heard = Publications(valkey.url, hosts.store.keys.prefix)
        with traffic(hosts) as results:
            eventually(lambda: is_calibrated(hosts), PATIENCE)
            sick = hosts.engine("m-1")
            assert sick
            make_slow(sick.url, 3)
            eventually(lambda: acted(hosts, "m-1", "relaunch"), PATIENCE)
            hosts.ready("m-1", incarnation=2)
            trusted = (Health.PROBATION, Health.HEALTHY)
            eventually(lambda: of(hosts, "m-1").health in trusted, PATIENCE)
        assert len(answers(results, within=60)) == len(results)
        assert all(count == 1 for count in heard.seen().values())
        heard.close()
        for name in ("m-0", "m-2"):
            assert not acted(hosts, name, "relaunch")
        (relaunch,) = acted(hosts, "m-1", "relaunch")
        drain = acted(hosts, "m-1", "treat")[0]
        assert drain["verdict"].startswith("slow: takes ")
        assert float(drain["residual"]) > 0.5
        assert drain["peers"] == "2"
        assert drain["health"] == "suspect -> draining"
        assert relaunch["health"] == "verify -> relaunching"
        assert float(relaunch["slowdown"]) > 2
        kept = kept_look(hosts.store, drain["snapshot"])
        assert kept
        look = look_from_json(kept)
        assert actions_to_json(look.again().actions) == look.actions
