"""The launcher's smaller parts: records, GPUs, causes, ports, logs, the lock."""

import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from launcher.engine_types import Launch
from launcher.host import allocation, process
from launcher.host.gpus import GpuInventory
from launcher.host.lock import HostLock
from launcher.host.process import EngineProcess, Identity
from launcher.host.process_owners import ProcessOwners
from launcher.host.records import Record, Records
from modelserver.errors import ConfigurationError
from modelserver.values import EngineSpec
from tests.support.processes import eventually, lives

RECORD = Record(
    spec=EngineSpec("org/m-0", "org/m", "h1", gpus=(0, 1), port=8001),
    incarnation=4,
    process=Identity(123, 1700000000.25, "abc"),
    port=8001,
    gpus=(0, 1),
    log_offset=17,
    started_at=1700000000.0,
)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = Records(tmp_path / "engines")
    assert records.read_all() == ()
    records.write(RECORD)
    records.write(replace(RECORD, ready=True))
    assert records.read_all() == (replace(RECORD, ready=True),)
    records.remove("org/m-0")
    records.remove("org/m-0")
    assert records.read_all() == ()


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"spec": {"gpus": []}}'])
def test_damaged_record_is_dropped_and_the_others_stay(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path)
    records.write(RECORD)
    damaged = tmp_path / "broken.json"
    damaged.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert records.read_all() == (RECORD,)
    assert "broken.json is damaged" in caplog.text
    assert not damaged.exists()


def test_inventory_without_a_driver_is_empty() -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    inventory = GpuInventory()
    assert inventory.read() == ()
    assert inventory.driver == "no GPUs: NVML Shared Library Not Found"


def test_chosen_port_is_free_and_not_promised() -> None:
    port = allocation.find_port(taken=())
    assert port
    assert allocation.is_port_free(port)
    everything = range(allocation.FIRST_PORT, allocation.LAST_PORT + 1)
    assert allocation.find_port(taken=everything) is None


def test_holder_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not allocation.is_port_free(port)
        assert allocation.port_holder(port).startswith(f"pid {os.getpid()} (")
    assert allocation.is_port_free(port)


def run(tmp_path: Path, *argv: str, **environment: str) -> EngineProcess:
    unborn = process.new_identity()
    launch = Launch(argv, environment)
    return process.start(launch, tmp_path / "log", "engine=a", unborn)


def test_kill_ends_children_that_fled_into_another_session(tmp_path: Path) -> None:
    shell = "setsid sleep 300 & setsid sleep 300 & echo up; exec sleep 300"
    engine = run(tmp_path, "/bin/sh", "-c", shell)
    eventually(lambda: len(process.survivors(engine.identity)) == 3)
    pids = [each.pid for each in process.survivors(engine.identity)]
    os.kill(engine.identity.pid, 9)
    assert eventually(engine.ended) == "killed by SIGKILL"
    assert engine.kill() == []
    assert not any(lives(pid) for pid in pids)
    assert lives(os.getpid())


def test_ended_process_tells_how_and_leaves_no_zombie(tmp_path: Path) -> None:
    engine = run(tmp_path, sys.executable, "-c", "raise SystemExit(7)")
    assert eventually(engine.ended) == "exit code 7"
    eventually(lambda: not Path(f"/proc/{engine.identity.pid}").exists())


def test_program_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-program cannot be started"):
        run(tmp_path, "/no-such-program")


def test_stranger_with_a_dead_engines_number_is_left_alone() -> None:
    stranger = Identity(os.getpid(), time.time() - 3600, "no such mark")
    assert not process.is_alive(stranger.pid, stranger.created)
    assert process.survivors(stranger) == []
    assert EngineProcess(stranger).ended() == "ended"
    assert EngineProcess(stranger).kill() == []


def test_stranger_with_pid_and_start_time_of_an_engine_is_no_engine(
    tmp_path: Path,
) -> None:
    stranger = run(tmp_path, "/bin/sleep", "300")
    taken = replace(stranger.identity, mark="of an engine that has ended")
    assert process.head_lives(stranger.identity)
    assert not process.head_lives(taken)
    assert process.survivors(taken) == []
    assert EngineProcess(taken).kill() == []
    assert lives(stranger.identity.pid)
    assert stranger.kill() == []
    assert not process.head_lives(stranger.identity)


def test_engine_that_lost_a_process_it_needs_is_noticed(tmp_path: Path) -> None:
    shell = "(exec -a sglang::scheduler_TP0 sleep 300) & (exec -a helper sleep 300) & "
    engine = run(tmp_path, "/bin/bash", "-c", shell + "exec sleep 300")
    found = eventually(lambda: process.vital_processes(engine.identity))
    assert [each.title for each in found] == ["sglang::scheduler_TP0 300"]
    assert process.find_ended(found) is None
    os.kill(found[0].pid, 9)
    eventually(lambda: process.find_ended(found) == found[0])
    assert engine.ended() is None
    assert engine.kill() == []


def test_processes_of_a_container_are_the_engines_where_their_mark_is_hidden() -> None:
    script = "sleep 300 & wait"
    with subprocess.Popen(["/bin/bash", "-c", script]) as first:
        head = psutil.Process(first.pid)
        (child,) = eventually(lambda: head.children())
        engine = Identity(0, time.time(), "the mark", "/bin/true")
        inner = replace(engine, inner_pid=head.pid, inner_created=head.create_time())
        owners = ProcessOwners(lambda: [("m-0", inner)])
        owners.refresh()
        found = owners.identify(child.pid, used=5)
        assert found is not None
        assert found.engine == "m-0"
        assert {each.pid for each in process.survivors(inner)} == {head.pid, child.pid}
        assert process.survivors(engine) == []
        assert EngineProcess(inner).kill() == []
    assert not lives(child.pid)


def test_empty_mark_finds_nobody() -> None:
    assert process.survivors(Identity(0, time.time() - 3600, "")) == []


def test_large_log_is_set_aside_before_a_start(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    assert process.rotate(log) == 0
    with log.open("wb") as file:
        file.truncate(process.LOG_LIMIT_BYTES + 1)
    assert process.rotate(log) == 0
    assert (tmp_path / "logs" / "a.log.1").exists()
    log.write_text("before\nnow\n")
    assert process.rotate(log) == 11
    assert process.read_tail(log, 7) == "now\n"
    assert process.read_tail(tmp_path / "none", 0) == ""


def test_lock_is_held_by_one_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "launcher.lock"
    first = HostLock.acquire(path)
    assert first.previous_pid == 0
    with pytest.raises(ConfigurationError, match=f"pid {os.getpid()}"):
        HostLock.acquire(path)
    first.release()
    second = HostLock.acquire(path)
    assert second.previous_pid == os.getpid()
    second.release()
