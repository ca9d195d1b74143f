"""Real processes: their start, their end, and whose they are."""

import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from launcher.engine_types import Launch
from launcher.host import process
from launcher.host.listeners import find_stranger
from launcher.host.logs import LOG_LIMIT_BYTES, read_tail
from launcher.host.process import EngineProcess, Identity
from launcher.host.process_owners import ProcessOwners
from modelserver.births import Birth, find_birth
from modelserver.errors import ConfigurationError
from tests.support.processes import LEADERLESS, eventually, lives


def run(tmp_path: Path, *argv: str, **environment: str) -> EngineProcess:
    unborn = process.new_identity()
    launch = Launch(argv, environment)
    return process.start(launch, tmp_path / "log", "engine=a", unborn)


#: It leaves its engine's group and listens.
FLED = """
import os, pathlib, socket
os.setsid()
server = socket.create_server(("127.0.0.1", 0))
pathlib.Path("port.new").write_text(str(server.getsockname()[1]))
os.rename("port.new", "port")
"""


def sleeper(tmp_path: Path) -> EngineProcess:
    engine = run(tmp_path, "/bin/sleep", "300")
    # While it becomes this program it has no environment, so no mark.
    eventually(psutil.Process(engine.identity.pid).environ)
    return engine


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


def test_an_engine_is_there_while_a_thread_of_it_has_its_memory(tmp_path: Path) -> None:
    engine = run(tmp_path, sys.executable, "-c", LEADERLESS)
    found = psutil.Process(engine.identity.pid)
    eventually(lambda: found.status() == psutil.STATUS_ZOMBIE)
    assert process.survivors(engine.identity) == [found]
    assert engine.kill() == []
    assert process.survivors(engine.identity) == []


def test_what_a_process_has_is_its_engines_though_its_first_thread_has_ended(
    tmp_path: Path,
) -> None:
    """Also where it fled from its engine's group, as some helpers do."""
    program = tmp_path / "fled.py"
    program.write_text(f"{FLED}{LEADERLESS}")
    shell = 'cd "$1"; "$0" fled.py & exec sleep 300'
    engine = run(tmp_path, "/bin/sh", "-c", shell, sys.executable, str(tmp_path))
    eventually((tmp_path / "port").exists)
    port = int((tmp_path / "port").read_text())
    (child,) = psutil.Process(engine.identity.pid).children()[:1]
    eventually(lambda: child.status() == psutil.STATUS_ZOMBIE)
    os.kill(engine.identity.pid, 9)
    eventually(engine.ended)
    assert child in process.survivors(engine.identity)
    assert find_stranger(port, engine.identity, may_be_unseen=False) == ""
    owners = ProcessOwners(lambda: [("m-0", engine.identity)])
    owners.refresh()
    found = owners.identify(child.pid, used=1)
    assert found is not None
    assert found.engine == "m-0"
    assert engine.kill() == []
    assert not lives(child.pid)


def test_an_adopted_head_lives_while_any_thread_of_it_does(tmp_path: Path) -> None:
    engine = run(tmp_path, sys.executable, "-c", LEADERLESS)
    found = psutil.Process(engine.identity.pid)
    eventually(lambda: found.status() == psutil.STATUS_ZOMBIE)
    adopted = EngineProcess(engine.identity)
    assert engine.ended() is None
    assert adopted.ended() is None
    assert engine.kill() == []
    assert adopted.ended() == "ended"


def test_ended_process_tells_how_and_leaves_no_zombie(tmp_path: Path) -> None:
    engine = run(tmp_path, sys.executable, "-c", "raise SystemExit(7)")
    assert eventually(engine.ended) == "exit code 7"
    eventually(lambda: not Path(f"/proc/{engine.identity.pid}").exists())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"no_proxy": "a.example, b"}, "a.example,b,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a", "no_proxy": "b"}, "b,a,127.0.0.1,localhost,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_an_engine_asks_its_own_address_without_a_proxy(
    tmp_path: Path, given: dict[str, str], expected: str
) -> None:
    code = (
        "import os, urllib.request as r; print(os.environ['NO_PROXY'], "
        "os.environ['no_proxy'], [bool(r.proxy_bypass(h)) for h in "
        "('127.0.0.1:30000', 'localhost:1', 'models.example')])"
    )
    proxy = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
    environment = {"no_proxy": "", "NO_PROXY": "", **proxy, **given}
    engine = run(tmp_path, sys.executable, "-c", code, **environment)
    assert eventually(engine.ended) == "exit code 0"
    last = (tmp_path / "log").read_text().splitlines()[-1]
    bypassed = [True, True, expected == "*"]
    assert last == f"{expected} {expected} {bypassed}"


def test_program_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-program cannot be started"):
        run(tmp_path, "/no-such-program")


def test_a_program_may_come_if_its_disk_or_its_copy_is_under_way(tmp_path: Path):
    copied = tmp_path / "copied"
    shutil.copy(shutil.which("sleep") or "", copied)
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with copied.open("ab"):  # Somebody still writes it.
        programs = {"/not-mounted/python": True, str(copied): True}
        programs |= {"no-such-program": False, str(plain): False}
        for program, may_come in programs.items():
            with pytest.raises(ConfigurationError) as raised:
                run(tmp_path, program)
            assert raised.value.may_come == may_come, program


def test_stranger_with_a_dead_engines_number_is_left_alone() -> None:
    stranger = Identity(os.getpid(), time.time() - 3600, "no such mark")
    assert not stranger.head_lives
    assert process.survivors(stranger) == []
    assert EngineProcess(stranger).ended() == "ended"
    assert EngineProcess(stranger).kill() == []


def test_no_step_of_the_clock_makes_an_engine_look_dead(tmp_path: Path) -> None:
    shell = "(exec -a sglang::scheduler_TP0 sleep 300) & exec sleep 300"
    engine = run(tmp_path, "/bin/bash", "-c", shell)
    eventually(lambda: process.vital_processes(engine.identity))
    for step in (3600, -3600):
        # As it is told by another clock than the one of its start.
        known = replace(engine.identity, created=engine.identity.created + step)
        assert process.head_lives(known)
        assert EngineProcess(known).ended() is None
        assert len(process.survivors(known)) == 2
    assert engine.kill() == []


def test_a_process_is_told_by_the_boot_of_its_host(tmp_path: Path) -> None:
    engine = sleeper(tmp_path)
    birth = find_birth(engine.identity.pid)
    assert birth == engine.identity.birth
    assert 0 <= birth.age_seconds < 60
    earlier = replace(engine.identity, birth=replace(birth, boot="another boot"))
    assert not process.head_lives(earlier)
    assert process.survivors(earlier) == []
    assert engine.kill() == []
    assert find_birth(engine.identity.pid) is None


def test_a_record_of_the_version_before_is_told_by_its_start(tmp_path: Path) -> None:
    engine = sleeper(tmp_path)
    created = psutil.Process(engine.identity.pid).create_time()
    old = replace(engine.identity, created=created, birth=Birth())
    assert process.head_lives(old)
    assert len(process.survivors(old)) == 1
    assert not process.head_lives(replace(old, created=created - 60))
    assert engine.kill() == []


def test_stranger_with_pid_and_start_time_of_an_engine_is_no_engine(
    tmp_path: Path,
) -> None:
    stranger = sleeper(tmp_path)
    taken = replace(stranger.identity, mark="of an engine that has ended")
    assert process.head_lives(stranger.identity)
    assert not process.head_lives(taken)
    assert process.survivors(taken) == []
    assert EngineProcess(taken).kill() == []
    assert lives(stranger.identity.pid)
    assert stranger.kill() == []
    assert not process.head_lives(stranger.identity)


def test_an_engine_that_cleared_its_environment_is_told_by_its_birth(
    tmp_path: Path,
) -> None:
    engine = run(tmp_path, "/usr/bin/env", "-i", "/bin/sleep", "300")
    head = psutil.Process(engine.identity.pid)
    eventually(lambda: head.cmdline() == ["/bin/sleep", "300"])
    assert process.head_lives(engine.identity)
    assert not process.head_lives(replace(engine.identity, birth=Birth()))
    assert engine.kill() == []
    assert not lives(engine.identity.pid)


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


def test_empty_mark_finds_nobody() -> None:
    assert process.survivors(Identity(0, time.time() - 3600, "")) == []


def test_large_log_is_set_aside_before_a_start(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    assert process.rotate(log) == 0
    with log.open("wb") as file:
        file.truncate(LOG_LIMIT_BYTES + 1)
    assert process.rotate(log) == 0
    assert (tmp_path / "logs" / "a.log.1").exists()
    log.write_text("before\nnow\n")
    assert process.rotate(log) == 11
    assert read_tail(log, 7) == "now\n"
    assert read_tail(tmp_path / "none", 0) == ""
