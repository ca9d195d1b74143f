"""Failovers of the server, planned and after its death, and what they can lose."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis
from celery.result import AsyncResult

from benchmarks.machine import START_SECONDS, Server
from benchmarks.report import Goal, Report
from benchmarks.rig import PREFIX, Rig
from modelserver.errors import ModelserverError
from tests.chaos.load import COLUMNS, Account, Load
from tests.chaos.proxy import Proxy
from tests.chaos.workers import promises
from tests.support.processes import eventually

#: For how long the address still leads to the old primary, in seconds.
DEMOTED_SECONDS = 1.0
#: How long nobody answers after the primary has died, in seconds.
DEAD_SECONDS = 2.0
#: How far the replica is behind in some runs, in seconds.
BEHIND_SECONDS = 4.0
#: Settings of the server that bound what is lost.
BOUND = {"min-replicas-to-write": "1", "min-replicas-max-lag": "1"}
#: Requests sent each second while the server fails over.
RATE = 50.0
MORE = ("refused", "lost by server", "span s", ".get() failed", "longest .get() s")


class Pair(Server):
    """A primary and its replica under one address, which leads to the primary.

    The address is a proxy's and stands for the name of a managed server. ``options``
    are the primary's.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder, **options)
        self._stack = ExitStack()

    def start(self) -> Self:
        """Start both and wait until the replica has all that the primary has."""
        super().start()
        self.first = self._open(self.url)
        self.link = self._stack.enter_context(Proxy(self.port))
        self.address = self._stack.enter_context(Proxy(self.port))
        self.replica = Server(
            self.folder / "replica", replicaof=f"127.0.0.1 {self.link.port}"
        )
        self._stack.callback(self.replica.stop)
        self.replica.start()
        self.second = self._open(self.replica.url)
        eventually(lambda: self._role("second")[3] == "connected", START_SECONDS)
        self.url = self.address.url
        return self

    def stop(self) -> None:
        """End both."""
        self.kill()
        self._stack.close()

    def kill(self) -> None:
        """SIGKILL the primary."""
        super().stop()

    def swap(self) -> None:
        """The planned failover: the replica takes over when it has everything.

        The old primary lives on as the replica, for a while under the address too.
        """
        self.first.execute_command("FAILOVER", "TIMEOUT", 10_000)
        eventually(lambda: self._role("second")[0] == "master")
        time.sleep(DEMOTED_SECONDS)
        self.address.retarget(self.replica.port)

    def promote(self) -> None:
        """Make the replica a primary, which the address does not lead to yet."""
        self.second.execute_command("REPLICAOF", "NO", "ONE")

    def _role(self, which: str) -> list[str]:
        return list(map(str, getattr(self, which).execute_command("ROLE")))

    def _open(self, url: str) -> "redis.Redis":
        client = redis.Redis.from_url(url, decode_responses=True)
        self._stack.callback(client.close)
        return client


class Clients:
    """Two threads: one sends at a rate, one sends and waits for each answer."""

    def __init__(self, load: Load) -> None:
        self.load = load
        #: Refused by ``.delay()``, which said so.
        self.refused = 0
        #: Requests for which ``.get()`` gave no answer.
        self.missed: list[str] = []
        self.longest = 0.0
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=one, daemon=True)
            for one in ((self._send, 1 / RATE), (self._ask, 0.0))
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Both finish what they do."""
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _repeat(self, step: Callable[[], None], pause: float) -> None:
        while not self._end.wait(pause):
            step()

    def _send(self) -> str:
        try:
            return self.load.send(1)[0]
        except ModelserverError:
            self.refused += 1
            self._end.wait(0.1)
            return ""

    def _ask(self) -> None:
        if sent := self._send():
            began = time.monotonic()
            try:
                AsyncResult(sent, app=self.load.app).get(timeout=10)
            except Exception:
                self.missed.append(sent)
            else:
                self.longest = max(self.longest, time.monotonic() - began)


@dataclass
class Run:
    """What became of one run: its account, and what the server alone has lost."""

    account: Account
    clients: Clients
    gone: set[str] = field(default_factory=set)
    #: Seconds from the first to the last request that the server has lost.
    span: float = 0.0
    #: Without an answer, though the server has not lost them.
    lost: int = 0

    def row(self) -> tuple[Any, ...]:
        """The run as a row under COLUMNS and MORE."""
        missed = len(set(self.clients.missed) - self.gone)
        return (
            *self.account.row(),
            *(self.clients.refused, len(self.gone), self.span),
            *(missed, self.clients.longest),
        )


def redis_failed_over() -> Report:
    """A replica takes over under load: planned, at once, and while it was behind.

    Two workers; everybody reaches the server by one address. A planned failover loses
    nothing. The death of a primary loses what its replica did not have: those requests
    are looked for on the replica before anybody can write to it, and told apart. They
    span the time that the replica was behind, unless the primary refuses writes then.
    """
    planned, dead = _planned(), _dead("killed")
    behind = f"{BEHIND_SECONDS:g} s behind"
    late = _dead(behind, behind=BEHIND_SECONDS)
    bound = _dead(f"{behind}, min-replicas", behind=BEHIND_SECONDS, **BOUND)
    runs = [planned, dead, late, bound]
    goals = (
        *promises([planned.account]),
        Goal("lost but by the server", sum(run.lost for run in runs), 0, "", True),
        Goal("wrong in all runs", sum(run.account.wrong for run in runs), 0, "", True),
        Goal("get failed", sum(run.row()[-2] for run in runs), 0, "", True),
        Goal("last rerun", max(map(_latest, runs)), 20.0, "s", True),
        Goal("span with min-replicas", bound.span, 3.0, "s", True),
    )
    rows = tuple(run.row() for run in runs)
    note = "a request that the server lost can be stored twice: once on either server"
    return Report((*COLUMNS, *MORE), rows, goals, (note,))


def _planned() -> Run:
    with Rig("--latency", "0.5", limit=64, server=Pair) as rig:
        load, clients = _in_mid_load(rig)
        load.strike(load.unanswered())
        _pair(rig).swap()
        return _finish("planned", load, clients)


def _dead(name: str, behind: float = 0.0, **options: str) -> Run:
    with Rig("--latency", "0.5", limit=64, server=Pair, server_options=options) as rig:
        pair = _pair(rig)
        load, clients = _in_mid_load(rig)
        if behind:
            pair.link.cut()
            time.sleep(behind)
        load.strike(load.unanswered())
        pair.kill()
        time.sleep(DEAD_SECONDS)
        pair.promote()
        gone = set(load.prompts) - _kept(pair.second)
        pair.address.retarget(pair.replica.port)
        return _finish(name, load, clients, gone)


def _pair(rig: Rig) -> Pair:
    assert isinstance(rig.server, Pair)
    return rig.server


def _in_mid_load(rig: Rig) -> tuple[Load, Clients]:
    first = rig.worker(wait=False)
    rig.worker()
    eventually(lambda: rig.name_of(first), within=START_SECONDS)
    load = Load(rig)
    load.send(200)
    clients = Clients(load)
    load.wait(100)
    return load, clients


def _finish(
    name: str, load: Load, clients: Clients, gone: set[str] | None = None
) -> Run:
    time.sleep(1.0)
    gone = gone or set()
    clients.end()
    load.settle(within=30, gone=gone)
    for one in gone:
        load.struck_at.pop(one, None)
    missing = set(load.prompts) - set(load.results()) - gone
    times = [load.accepted_at[one] for one in gone] or [0.0]
    span = max(times) - min(times)
    return Run(load.account(name), clients, gone, span, lost=len(missing))


def _latest(run: Run) -> float:
    return run.account.quantile(1.0)


def _kept(client: "redis.Redis") -> set[str]:
    """The requests that a server has, in whatever place."""
    found: set[str] = set()
    result = PREFIX + "celery-task-meta-"
    for key in client.scan_iter(PREFIX + "*"):
        if key.startswith(result):
            found.add(key.removeprefix(result))
            continue
        kind, held = client.type(key), key.startswith(PREFIX + "unacked:")
        values: Any = client.lrange(key, 0, -1) if kind == "list" else []
        values = client.hvals(key) if held else values
        bodies = [value[value.find("{") :] for value in values if "{" in value]
        found |= {json.loads(body)["headers"]["id"] for body in bodies}
    return found
