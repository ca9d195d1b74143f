"""Launchers of several hosts, with GPUs that strangers come to and leave."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from modelserver.cli.output import console
from modelserver.cli.status import render
from modelserver.operations.status import Status, read_status
from modelserver.store.fleet.control import read_wishes
from modelserver.store.fleet.engines import read_engines
from modelserver.values import EngineReport
from tests.nvml import StubGpu, build
from tests.nvml.fleet import GpuFleet, section
from tests.support.processes import ValkeyProcess, end, eventually, frozen

Make = Callable[..., GpuFleet]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


def uuid(host: str, index: int) -> str:
    """Tests that run beside this one have GPUs of their own."""
    return f"GPU-{host}{index}-{os.getpid()}"


@pytest.fixture
def make(tmp_path: Path, valkey: ValkeyProcess, library: Path) -> Iterator[Make]:
    """Makes a fleet: sections of its file, and numbers of GPUs by host.

    Hosts of one ``machine`` have the same GPUs.
    """
    made: list[GpuFleet] = []

    def fleet(*sections: str, machine: str = "", **hosts: int) -> GpuFleet:
        gpus = {
            host: [StubGpu(uuid(machine or host, index)) for index in range(number)]
            for host, number in hosts.items()
        }
        made.append(GpuFleet(tmp_path, valkey.url, library, gpus, sections))
        return made[-1]

    yield fleet
    for each in made:
        each.end()


@pytest.fixture
def stranger() -> Iterator[int]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process.pid
        process.kill()


def status(fleet: GpuFleet) -> Status:
    return read_status(fleet.store, fleet.settings)


def waits_for(fleet: GpuFleet, model: str) -> str:
    fleet.steer()
    return next(each.waiting_for for each in status(fleet).models if each.name == model)


def test_an_engine_waits_for_a_stranger_to_leave_and_then_starts(
    make: Make, stranger: int
) -> None:
    fleet = make(section("m", gpus=2, gpu_memory_gib=70), a=2)
    fleet.stranger("a", 0, stranger, 66)
    eventually(fleet.seen)
    reason = eventually(lambda: waits_for(fleet, "m"))
    assert reason.startswith(
        "m-0: needs 2 GPUs with 70 GiB free; host a: 1 of 2 GPUs fits, gpu 0 has 14 "
        f"GiB free: 66 GiB held by pid {stranger} sleep ("
    )
    with console() as shown, shown.capture() as text:
        shown.print(render(status(fleet)))
    assert "66 GiB held by pid" in text.get()
    assert "66.0/80.0 GiB" in text.get()
    fleet.stranger("a", 0, stranger, 0)
    fleet.until_ready("m-0")
    assert waits_for(fleet, "m") == ""
    engine = fleet.ready()["m-0"]
    environment = psutil.Process(engine.pid).environ()
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    eventually(lambda: fleet.gpus("a")[0].holders == "70 GiB held by engine m-0")


def test_what_is_promised_is_looked_at_again_right_before_the_start(
    make: Make, stranger: int
) -> None:
    fleet = make(section("m", gpus=1), a=1)
    eventually(fleet.seen)
    launcher = fleet.launchers["a"].process
    launcher.send_signal(signal.SIGSTOP)
    fleet.steer()
    assert read_wishes(fleet.store)["m-0"].spec.uuids == (uuid("a", 0),)
    fleet.stranger("a", 0, stranger, 40)
    launcher.send_signal(signal.SIGCONT)
    eventually(fleet.seen)

    def held() -> EngineReport:
        engine = read_engines(fleet.store)["m-0"]
        holders = fleet.gpus("a")[0].holders
        # It is reported before its GPU is looked at, without a reason.
        assert engine.reason == f"needs 1 free GPU; gpu 0 has 40 GiB free: {holders}"
        return engine

    eventually(lambda: "m-0" in read_engines(fleet.store))
    assert eventually(held).incarnation == 0


def test_an_engine_whose_gpu_a_stranger_took_is_started_elsewhere(
    make: Make, stranger: int
) -> None:
    fleet = make(section("m", gpus=1), a=1, b=1)
    eventually(fleet.seen)
    fleet.until_ready("m-0")
    engine = fleet.ready()["m-0"]
    fleet.stranger(engine.host, 0, stranger, 8)
    eventually(fleet.seen)
    assert fleet.steer() == []
    fleet.stranger(engine.host, 0, stranger, 60)
    os.kill(engine.pid, signal.SIGKILL)
    there = {"a": "b", "b": "a"}[engine.host]

    def moved() -> bool:
        fleet.breathe()
        fleet.steer()
        return [engine.host for engine in fleet.ready().values()] == [there]

    eventually(moved)


def test_an_engine_that_finds_no_memory_tries_another_gpu(make: Make) -> None:
    full = 'test "$CUDA_VISIBLE_DEVICES" != 0 && exec "$@"; '
    full += "echo torch.OutOfMemoryError: CUDA out of memory; exit 1"
    server = [sys.executable, "-m", "tests.engine.server", "--port", "{port}"]
    command = ["sh", "-c", full, "sh", *server, "--model", "{model}"]
    fleet = make(section("m", gpus=1, command=command), a=2)
    eventually(fleet.seen)

    def there() -> EngineReport | None:
        fleet.breathe()
        fleet.steer()
        return fleet.ready().get("m-0")

    engine = eventually(there)
    assert engine
    assert (engine.gpus, engine.incarnation) == ((1,), 3)


def test_a_gpu_that_reports_a_fault_is_not_used_again(make: Make) -> None:
    fleet = make(section("m", gpus=1), a=2)
    fleet.until_ready("m-0")
    engine = fleet.ready()["m-0"]
    assert engine.gpus == (0,)
    fleet.stubs["a"].xids.append((0, 79))
    fleet.stubs["a"].write()
    eventually(lambda: fleet.gpus("a")[0].fault)
    os.kill(engine.pid, signal.SIGKILL)

    def again() -> bool:
        fleet.breathe()
        fleet.steer()
        found = fleet.ready().get("m-0")
        return found is not None and found.gpus == (1,)

    eventually(again)
    assert "XID 79, fallen off the bus" in fleet.launchers["a"].said()


def test_a_gpu_on_which_engines_die_of_cuda_is_put_aside(make: Make) -> None:
    bad = 'test "$CUDA_VISIBLE_DEVICES" != 0 && exec "$@"; '
    bad += "echo RuntimeError: CUDA error: unspecified launch failure; exit 1"
    server = [sys.executable, "-m", "tests.engine.server", "--port", "{port}"]
    command = ["sh", "-c", bad, "sh", *server, "--model", "{model}"]
    keys = {"gpu_memory_gib": 10, "share_gpu": True, "min_engines": 2}
    fleet = make(section("m", gpus=1, command=command, **keys), a=2)
    fleet.until_ready("m-0", "m-1")
    assert [engine.gpus for engine in fleet.ready().values()] == [(1,), (1,)]
    fault = fleet.gpus("a")[0].fault
    assert fault.startswith("engines died of CUDA errors on it 3 times within an hour")
    assert "unspecified launch failure" in fault


def test_a_launcher_keeps_to_the_gpus_that_its_host_lists(make: Make) -> None:
    hosts = '[[hosts]]\nname = "a"\ngpus = [1]\n'
    fleet = make(section("m", gpus=1, min_engines=2), hosts, a=2)
    fleet.until_ready("m-0")
    assert fleet.ready()["m-0"].gpus == (1,)
    assert "gpu 0 is left out: gpus of this host in [[hosts]] are [1]" in (
        waits_for(fleet, "m")
    )
    with console() as shown, shown.capture() as text:
        shown.print(render(status(fleet)))
    assert "left out: gpus of this host in" in text.get()


def test_launchers_of_one_machine_do_not_take_each_others_gpus(make: Make) -> None:
    """However little of a GPU an engine takes that needs all of it."""
    fleet = make(section("m", gpus=1, min_engines=2), machine="one", a=1, b=1)
    eventually(fleet.seen)

    def ready() -> list[str]:
        fleet.steer()
        return sorted(fleet.ready())

    (first,) = eventually(ready)
    host = read_engines(fleet.store)[first].host
    other = "b" if host == "a" else "a"
    launcher = fleet.launchers[host].process
    said = f"the launcher pid {launcher.pid} ("

    def reason() -> str:
        fleet.steer()
        return fleet.gpus(other)[0].left_out

    eventually(lambda: reason().startswith(said))
    eventually(lambda: "left out: the launcher pid" in waits_for(fleet, "m"))
    assert ready() == [first]
    # Once that one ends, the other host may have it.
    launcher.terminate()

    def moved() -> bool:
        fleet.steer()
        return [engine.host for engine in fleet.ready().values()] == [other]

    eventually(moved)


def test_an_engine_keeps_its_gpus_while_no_launcher_looks_after_it(make: Make) -> None:
    """However little of a GPU it takes; and the next launcher goes on with it."""
    fleet = make(section("m", gpus=1), machine="one", a=1, b=1)
    eventually(fleet.seen)
    fleet.until_ready("m-0")
    engine = fleet.ready()["m-0"]
    other = "b" if engine.host == "a" else "a"
    launcher = fleet.launchers[engine.host].process
    end(launcher)

    def reason() -> str:
        return fleet.gpus(other)[0].left_out

    text = f"an engine of the launcher pid {launcher.pid} ("
    eventually(lambda: reason().startswith(text))
    fleet.launch(engine.host)
    again = fleet.launchers[engine.host]
    eventually(lambda: "adopted" in again.said())
    text = f"the launcher pid {again.process.pid} ("
    eventually(lambda: reason().startswith(text))
    assert not fleet.gpus(engine.host)[0].left_out
    # It goes with the engine.
    end(again.process)
    psutil.Process(engine.pid).kill()
    eventually(lambda: not reason())


def test_nothing_is_started_beside_an_engine_that_no_signal_ends(make: Make) -> None:
    fleet = make(section("m", gpus=1), a=1)
    eventually(fleet.seen)
    fleet.until_ready("m-0")
    old = fleet.ready()["m-0"].pid
    with frozen(old):
        launcher = fleet.launchers["a"]
        launcher.process.terminate()
        assert launcher.wait(60) == 0
        fleet.launch("a")
        who = f"pid {old} (python) of engine m-0"
        left = f"m-0: needs 1 free GPU; host a: gpu 0 is left out: {who} does not end"
        eventually(lambda: waits_for(fleet, "m").startswith(left))
        (trouble,) = status(fleet).hosts[0].troubles
        assert trouble.startswith(f"{who} was killed and does not end: it waits for a")
        assert not fleet.ready()
    fleet.until_ready("m-0")
    assert fleet.ready()["m-0"].pid != old
    eventually(lambda: not status(fleet).hosts[0].troubles)


def test_engines_of_a_lost_host_go_where_there_is_room(make: Make) -> None:
    fleet = make(section("m", gpus=1, min_engines=2), a=1, b=2)
    eventually(fleet.seen)
    fleet.until_ready("m-0", "m-1")
    hosts = {name: engine.host for name, engine in fleet.ready().items()}
    assert sorted(hosts.values()) == ["a", "b"]
    lost = fleet.ready()[next(name for name, host in hosts.items() if host == "a")]
    end(fleet.launchers.pop("a").process)
    psutil.Process(lost.pid).kill()

    def moved() -> bool:
        fleet.breathe()
        fleet.steer()
        return [engine.host for engine in fleet.ready().values()] == ["b", "b"]

    eventually(moved)


def test_a_driver_that_hangs_makes_the_gpus_faulty_and_the_launcher_goes_on(
    make: Make,
) -> None:
    fleet = make(section("m", gpus=1), a=1)
    fleet.until_ready("m-0")
    fleet.stubs["a"].hangs = True
    fleet.stubs["a"].write()
    gpu = eventually(lambda: [g for g in fleet.gpus("a") if g.fault])[0]
    assert gpu.fault.startswith("the driver has not answered for ")
    assert "m-0" in fleet.ready()
    fleet.stubs["a"].hangs = False
    fleet.stubs["a"].write()
    eventually(lambda: not fleet.gpus("a")[0].fault)


def test_a_host_without_a_driver_says_so_and_runs_engines_without_gpus(
    make: Make,
) -> None:
    fleet = make(section("m"), section("big", gpus=1), a=0)
    fleet.stubs["a"].driver = ""
    fleet.stubs["a"].write()
    fleet.until_ready("m-0")
    assert waits_for(fleet, "big") == "big-0: needs 1 free GPU; host a has no GPUs"
    (host,) = status(fleet).hosts
    assert host.driver == "no GPUs: Driver Not Loaded"
