"""Whose processes listen on an engine's port, and who can reach them."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import AF_INET, AF_INET6

from launcher.engine_types import Launch
from launcher.host import process
from launcher.host.exposed import find_exposed
from launcher.host.listeners import Listeners, PortWatch, find_stranger
from launcher.host.process import EngineProcess
from launcher.host.records import Record, Records
from modelserver.values import EngineSpec
from tests.support.processes import eventually, free_port

#: A server that lets others of its user listen on its port as well.
SHARING = """
import socket, sys, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
time.sleep(300)
"""
SERVER = """
import os, socket, sys, time
if os.fork():
    os.wait()
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
time.sleep(300)
"""


@contextmanager
def sharing_engine(folder: Path, port: int) -> Iterator[EngineProcess]:
    """An engine that lets others share its port, from when it listens."""
    launch = Launch((sys.executable, "-c", SHARING, str(port)))
    born = process.new_identity()
    engine = process.start(launch, folder / "log", "engine=a", born)
    try:
        eventually(lambda: answers(port))
        yield engine
    finally:
        assert engine.kill() == []


def share(port: int) -> socket.socket:
    """A socket of this process that listens there, too."""
    stranger = socket.socket()
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    stranger.bind(("127.0.0.1", port))
    stranger.listen()
    return stranger


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_child_of_the_engine_listens_as_the_engine(tmp_path: Path) -> None:
    for address in ("127.0.0.1", "0.0.0.0"):
        port = free_port()
        argv = (sys.executable, "-c", SERVER, address, str(port))
        launch = Launch(argv)
        born = process.new_identity()
        engine = process.start(launch, tmp_path / "log", "engine=a", born)
        eventually(lambda port=port: answers(port))
        assert find_stranger(port, engine.identity, may_be_unseen=False) == ""
        records = Records(tmp_path / "engines")
        spec = EngineSpec("m-0", "m", "h")
        records.write(Record(spec, 1, engine.identity, port, (), 0, 0.0))
        reached = {"m-0": f"0.0.0.0 port {port}"} if address == "0.0.0.0" else {}
        assert find_exposed(records) == reached
        assert engine.kill() == []


def test_who_listens_on_another_address_is_no_stranger(tmp_path: Path) -> None:
    port = free_port()
    argv = (sys.executable, "-c", SERVER, "127.0.0.1", str(port))
    engine = process.start(
        Launch(argv), tmp_path / "log", "engine=a", process.new_identity()
    )
    eventually(lambda: answers(port))
    with ExitStack() as others:
        for address, family in (("127.0.0.2", AF_INET), ("::1", AF_INET6)):
            server = socket.create_server((address, port), family=family)
            others.enter_context(server)
        assert find_stranger(port, engine.identity, may_be_unseen=False) == ""
        assert engine.kill() == []
        assert find_stranger(port, engine.identity, may_be_unseen=False) == ""


def test_a_stranger_on_any_address_is_named(tmp_path: Path) -> None:
    engine = process.start(
        *(Launch(("/bin/sleep", "300")), tmp_path / "log", "a", process.new_identity())
    )
    for dual in (False, True):
        family, address = (AF_INET6, "::") if dual else (AF_INET, "0.0.0.0")
        with socket.create_server(
            (address, 0), family=family, dualstack_ipv6=dual
        ) as stranger:
            port = stranger.getsockname()[1]
            assert find_stranger(port, engine.identity, may_be_unseen=False)
    assert engine.kill() == []


def test_a_stranger_is_named(tmp_path: Path) -> None:
    engine = process.start(
        Launch(("/bin/sleep", "300")),
        tmp_path / "log",
        "engine=a",
        process.new_identity(),
    )
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        for unseen in (False, True):
            who = find_stranger(port, engine.identity, unseen)
            assert who.startswith(f"pid {os.getpid()} (")
    assert find_stranger(port, engine.identity, may_be_unseen=False) == ""
    assert engine.kill() == []


def test_who_comes_to_listen_beside_an_engine_that_serves_is_named(
    tmp_path: Path,
) -> None:
    port, own = free_port(), f"pid {os.getpid()} ("
    with sharing_engine(tmp_path, port) as engine:
        watch = PortWatch(Listeners(), port, engine.identity, may_be_unseen=True)
        assert watch.find_stranger() == ""
        with share(port):
            eventually(lambda: watch.find_stranger().startswith(own))
        eventually(lambda: watch.find_stranger() == "")
    with socket.create_server(("127.0.0.1", port)):
        eventually(lambda: watch.find_stranger().startswith(own))


def test_a_socket_that_cannot_be_seen_is_no_engines_whose_own_can_be(
    tmp_path: Path,
) -> None:
    """Another user's, which only root sees, beside one of this user."""
    port = free_port()
    left, right = socket.socketpair()
    with sharing_engine(tmp_path, port) as engine, left, right:
        watch = PortWatch(Listeners(), port, engine.identity, may_be_unseen=True)
        assert watch.find_stranger() == ""
        with share(port) as stranger:
            # No process has such a file any more: the socket is in a message.
            socket.send_fds(left, [b"x"], [stranger.fileno()])
        eventually(lambda: watch.find_stranger() == "a process of another user")
