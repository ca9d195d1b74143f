"""A fleet whose Redis is watched by sentinels, through three kinds of failover."""

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from benchmarks.machine import Processes, Server
from benchmarks.report import Goal, Report
from modelserver.errors import StoreUnreachableError
from modelserver.store.fleet.control import read_steered
from modelserver.store.fleet.hosts import read_hosts
from tests.chaos.hosts import PATIENCE, Traffic, what_became
from tests.support.fleets import CLI, Hosts, model, open_hosts
from tests.support.processes import eventually, free_port
from tests.support.sentinels import Group

#: How long there is load before and after a failover, in seconds.
AROUND_SECONDS = 5.0
COLUMNS = ("failover", "sent", "right", "refused", "lost", "followed s", "engine")


@dataclass(frozen=True, slots=True)
class _Run:
    """What one failover did to the fleet."""

    name: str
    sent: int
    right: int
    #: Requests whose sender was told at once that nobody takes them.
    refused: int
    #: Seconds from the fault until every part worked by the new primary.
    followed: float
    #: What became of the engine.
    engine: str

    @property
    def lost(self) -> int:
        """Requests that were accepted and have no answer."""
        return self.sent - self.right - self.refused


def sentinel() -> Report:
    """Three failovers by sentinels, planned, of a killed and of a frozen primary.

    Three servers, three sentinels, a launcher, a worker, control and a gateway, which
    all have the sentinels' addresses only; ten requests a second.
    """
    with _fleet() as (hosts, group, gateway):
        runs = [
            _fail_over(name, fault, hosts, group, gateway)
            for name, fault in (
                ("planned", group.plan),
                ("killed", group.kill),
                ("frozen", group.freeze),
            )
        ]
    rows = [
        (r.name, r.sent, r.right, r.refused, r.lost, r.followed, r.engine) for r in runs
    ]
    return Report(
        COLUMNS,
        tuple(rows),
        (
            Goal("accepted and lost", sum(r.lost for r in runs), 0, at_most=True),
            Goal("engines untouched", sum(r.engine == "the same" for r in runs), 3),
            Goal("followed", max(r.followed for r in runs), 30, "s", at_most=True),
        ),
    )


@contextmanager
def _fleet() -> Iterator[tuple[Hosts, Group, str]]:
    with TemporaryDirectory(prefix="modelserver-chaos-") as name:
        folder = Path(name)
        with (
            Group(folder / "servers") as group,
            open_hosts(folder, group.url, model("m", "--latency", "0.5")) as hosts,
        ):
            port = free_port()
            serve = Processes(
                [*CLI, "serve", f"--port={port}"],
                folder / "gateway.log",
                {**os.environ, **hosts.environment()},
            )
            try:
                hosts.launch("h1")
                hosts.ready("m-0")
                hosts.worker("h1")
                yield hosts, group, f"http://127.0.0.1:{port}"
            finally:
                serve.end()


def _fail_over(
    name: str,
    fault: Callable[[Server], None],
    hosts: Hosts,
    group: Group,
    gateway: str,
) -> _Run:
    eventually(group.is_whole, PATIENCE)
    before = hosts.ready("m-0")
    with Traffic(hosts) as traffic:
        time.sleep(AROUND_SECONDS)
        began, old = time.monotonic(), group.primary
        fault(old)
        eventually(lambda: _follow(hosts, gateway), PATIENCE)
        followed = time.monotonic() - began
        time.sleep(AROUND_SECONDS)
    outcomes = traffic.outcomes()
    refused = outcomes[StoreUnreachableError.__name__]
    engine = what_became(before, hosts.engine("m-0"))
    return _Run(name, traffic.sent, outcomes["right"], refused, followed, engine)


def _follow(hosts: Hosts, gateway: str) -> bool:
    """Whether launcher, control, worker and gateway work, by the primary of now."""
    body = {"model": "m", "prompt": "m", "max_tokens": 4}
    try:
        steered = hosts.store.now() - read_steered(hosts.store)[0] < 2
        if not steered or not read_hosts(hosts.store):
            return False
        request = urllib.request.Request(
            f"{gateway}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except (redis.RedisError, OSError):
        return False
