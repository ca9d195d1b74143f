"""The inventory of GPUs, through an NVML whose GPUs stand in a file."""

import getpass
import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.host.device_kinds import UNIFIED
from launcher.host.gpus import GpuInventory
from modelserver.inventory import GIB
from tests.nvml import StubGpu, StubNvml, build
from tests.nvml.reader import Reader
from tests.support.processes import eventually


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def stub(library: Path, tmp_path: Path) -> StubNvml:
    gpus = [StubGpu("GPU-a"), StubGpu("GPU-b", total=40)]
    return StubNvml(library, tmp_path / "gpus", gpus).write()


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that is no engine of ours."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_each_gpu_comes_with_its_figures(stub: StubNvml) -> None:
    stub.gpus[0] = StubGpu("GPU-a", used=8, util=35, temperature=61, watts=410)
    stub.write()
    with Reader(stub) as reader:
        host = reader.host()
    first, second = host.gpus
    assert host.driver == "570.1"
    assert (first.index, first.uuid, first.name) == (0, "GPU-a", "H100")
    assert (first.total, first.used, first.free) == (80 * GIB, 8 * GIB, 72 * GIB)
    assert (first.utilization, first.temperature) == (0.35, 61)
    assert first.power_watts == 410
    assert (second.uuid, second.free) == ("GPU-b", 40 * GIB)
    assert dict(first.missing) == {}


def test_processes_have_a_user_a_program_and_memory(
    stub: StubNvml, stranger: int
) -> None:
    stub.gpus[0].processes[stranger] = 66
    stub.write()
    with Reader(stub) as reader:
        gpu = reader.gpus()[0]
    (process,) = gpu.processes
    assert (process.pid, process.used, process.engine) == (stranger, 66 * GIB, "")
    assert (process.command, process.owner) == ("sleep", getpass.getuser())
    assert gpu.holders == f"66 GiB held by pid {stranger} sleep ({process.owner})"


def test_processes_of_our_engines_are_told_by_their_parents(stub: StubNvml) -> None:
    child = "import subprocess; subprocess.run(['sleep', '60'])"
    parent = subprocess.Popen([sys.executable, "-c", child])
    with parent:
        (worker,) = eventually(psutil.Process(parent.pid).children)
        stub.gpus[1].processes[worker.pid] = 20
        stub.write()
        with Reader(stub, engine=parent.pid) as reader:
            assert reader.gpus()[1].processes[0].engine == "engine"
            assert reader.gpus()[1].holders == "20 GiB held by engine engine"
        worker.kill()


def test_a_process_that_cannot_be_seen_is_said_to_be_so(stub: StubNvml) -> None:
    stub.gpus[0].processes[4_190_000] = 3
    stub.write()
    with Reader(stub) as reader:
        gpu = reader.gpus()[0]
    assert gpu.holders == "3 GiB held by pid 4190000"
    assert gpu.missing["owner"] == (
        "pid 4190000 cannot be seen from here: it runs in another container, or has "
        "just ended"
    )


def test_in_a_container_numbers_of_processes_tell_nothing(stub: StubNvml) -> None:
    stub.gpus[0].processes[os.getpid()] = 30
    with Reader(stub.write(), sees_all=False, m=os.getpid()) as reader:
        gpu = reader.gpus()[0]
    assert [(each.pid, each.engine) for each in gpu.processes] == [(os.getpid(), "")]
    assert gpu.unseen == 30 * GIB
    with Reader(stub, m=os.getpid()) as reader:
        gpu = reader.gpus()[0]
    assert (gpu.processes[0].engine, gpu.unseen) == ("m", 0)


def test_an_unknown_error_names_the_containers_remedy(stub: StubNvml) -> None:
    stub.unknown = ("nvmlDeviceGetCount_v2",)
    stub.code = 999
    with Reader(stub.write()) as reader:
        driver = reader.host().driver
    assert driver.startswith("no GPUs: Unknown Error (a container whose devices were")
    stub.unknown = ("nvmlDeviceGetMemoryInfo",)
    with Reader(stub.write()) as reader:
        gpu = reader.gpus()[0]
    assert "start it anew, with --device" in gpu.missing["memory"]
    assert gpu.left_out == ""


def test_an_updated_driver_is_named_with_its_remedy(stub: StubNvml) -> None:
    stub.unknown = ("nvmlDeviceGetCount_v2",)
    stub.code = 18
    with Reader(stub.write()) as reader:
        driver = reader.host().driver
    assert "the driver was updated: restart this host" in driver


def test_a_gpu_without_memory_of_its_own_is_left_out(stub: StubNvml) -> None:
    stub.unknown = ("nvmlDeviceGetMemoryInfo",)
    with Reader(stub.write()) as reader:
        assert [gpu.left_out for gpu in reader.gpus()] == [UNIFIED, UNIFIED]


def test_gpus_that_nvlink_connects_are_told(stub: StubNvml) -> None:
    stub.gpus.append(StubGpu("GPU-c"))
    stub.links.append((0, 2))
    with Reader(stub.write()) as reader:
        assert [gpu.links for gpu in reader.gpus()] == [(2,), (), (0,)]
    stub.unknown = ("nvmlDeviceGetP2PStatus",)
    with Reader(stub.write()) as reader:
        assert [gpu.links for gpu in reader.gpus()] == [(), (), ()]


def test_memory_without_a_process_is_somebodys_too(stub: StubNvml) -> None:
    stub.gpus[0].used = 30
    stub.write()
    with Reader(stub) as reader:
        held = reader.gpus()[0].holders
    assert held == "30 GiB held by what cannot be seen from here"


def test_reasons_for_low_clocks_have_names(stub: StubNvml) -> None:
    stub.gpus[0].reasons = 0x44
    stub.gpus[1].reasons = 0x01
    stub.write()
    with Reader(stub) as reader:
        first, second = reader.gpus()
    assert first.throttled == ("power cap", "hardware thermal")
    assert second.throttled == ()


def test_an_older_driver_names_the_reasons_differently_and_knows_no_mig(
    tmp_path: Path,
) -> None:
    library = build(tmp_path, "-DOLD_DRIVER")
    gpus = [StubGpu("GPU-a", reasons=0x04)]
    with Reader(StubNvml(library, tmp_path / "gpus", gpus).write()) as reader:
        (gpu,) = reader.gpus()
    assert gpu.throttled == ("power cap",)
    assert (gpu.total, dict(gpu.missing)) == (80 * GIB, {})


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetPowerUsage", "power_watts"),
        ("nvmlDeviceGetTemperature", "temperature"),
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttled"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "processes"),
        ("nvmlDeviceRegisterEvents", "xids"),
        ("nvmlDeviceGetMemoryInfo", "memory"),
    ],
)
def test_what_a_driver_does_not_tell_is_named_and_the_rest_is_there(
    stub: StubNvml, function: str, field: str
) -> None:
    stub.unknown = (function,)
    stub.write()
    with Reader(stub) as reader:
        first, second = reader.gpus()
    assert dict(first.missing) == {field: "Not Supported"}
    assert (first.uuid, second.uuid) == ("GPU-a", "GPU-b")
    assert not first.fault


@pytest.mark.parametrize("xid", [48, 64, 74, 79, 94, 95, 119, 120, 140, 143])
def test_an_xid_of_the_gpu_makes_it_faulty_for_good(stub: StubNvml, xid: int) -> None:
    with Reader(stub) as reader:
        assert not reader.gpus()[1].fault
        stub.xids.append((1, xid))
        stub.write()
        for _ in range(2):
            first, second = reader.gpus()
            assert f"XID {xid}, " in second.fault
            assert second.xids == (xid,)
            assert not first.fault


@pytest.mark.parametrize(
    ("health", "fault", "notes"),
    [
        ((1, 0, 0, 2), "", ["a row of its memory is to be remapped", "2 uncorrected"]),
        ((0, 1), "a row of its memory could not be remapped; replace it", []),
        ((0, 0, 1), "a page of its memory is to be retired; reset it", []),
        ((0, 0, 0, 0, 16, 2), "", ["16 of its 18 NVLinks work"]),
        ((0, 0, 0, 0, 0, 12), "", []),
        ((0, 0, 0, 0, 18, 0), "", []),
        ((0, 0, 0, 0, 0, 0, 4), "its driver asks for a reset", []),
    ],
)
def test_what_a_gpu_says_of_its_health_is_read_at_the_start(
    stub: StubNvml, health: tuple[int, ...], fault: str, notes: list[str]
) -> None:
    stub.gpus[1].health = health
    with Reader(stub.write()) as reader:
        first, second = reader.gpus()
    assert (first.fault, first.notes) == ("", ())
    assert second.fault == fault
    assert len(second.notes) == len(notes)
    assert all(map(operator.contains, second.notes, notes))


def test_what_the_driver_asks_for_is_read_when_it_says_so(stub: StubNvml) -> None:
    with Reader(stub) as reader:
        reader.gpus()
        stub.gpus[0].health = (0, 0, 0, 0, 0, 0, 2)
        stub.xids.append((0, 154))
        stub.write()
        reader.gpus()
        gpu = reader.gpus()[0]
        assert gpu.fault == "its driver asks for a restart of its host"
        assert gpu.notes == ("XID 154, the driver says what it needs",)
        stub.gpus[0].health = ()
        stub.xids.append((0, 154))
        stub.write()
        reader.gpus()
        assert reader.gpus()[0].fault == ""


@pytest.mark.parametrize("xid", [13, 31, 43])
def test_an_xid_of_a_program_is_told_and_no_fault_of_the_gpu(
    stub: StubNvml, xid: int
) -> None:
    with Reader(stub) as reader:
        reader.gpus()
        stub.xids.append((0, xid))
        stub.write()
        gpu = reader.gpus()[0]
    assert (gpu.xids, gpu.fault) == ((xid,), "")


def test_a_lost_gpu_keeps_its_name_and_the_others_go_on(stub: StubNvml) -> None:
    with Reader(stub) as reader:
        reader.gpus()
        stub.gpus[0].lost = True
        stub.write()
        first, second = reader.gpus()
        assert (first.uuid, first.total) == ("GPU-a", 0)
        assert first.fault == "GPU is lost; reset it, or restart the host"
        assert first.missing["memory"] == "GPU is lost"
        assert second.total == 40 * GIB
        stub.gpus[0].lost = False
        stub.write()
        eventually(lambda: reader.gpus()[0].total == 80 * GIB)
        assert reader.gpus()[0].fault == ""


def test_a_driver_that_comes_and_goes(stub: StubNvml) -> None:
    stub.driver = ""
    stub.write()
    with Reader(stub) as reader:
        host = reader.host()
        assert (host.gpus, host.driver) == ((), "no GPUs: Driver Not Loaded")
        stub.driver = "575.2"
        stub.write()
        host = reader.host()
        assert (len(host.gpus), host.driver) == (2, "575.2")
        stub.driver = ""
        stub.write()
        assert reader.gpus() == ()


def test_gpus_that_are_added_or_taken_out_are_seen_at_once(stub: StubNvml) -> None:
    with Reader(stub) as reader:
        assert len(reader.gpus()) == 2
        stub.gpus.append(StubGpu("GPU-c"))
        stub.write()
        assert [gpu.uuid for gpu in reader.gpus()] == ["GPU-a", "GPU-b", "GPU-c"]
        stub.gpus.clear()
        stub.write()
        assert reader.gpus() == ()


def test_mig_slices_are_gpus_of_their_own(stub: StubNvml) -> None:
    slices = {"MIG-1": 20.0, "MIG-2": 10.0}
    stub.gpus[0] = StubGpu("GPU-a", slices=slices, processes={os.getpid(): 4})
    stub.write()
    with Reader(stub) as reader:
        one, two, whole = reader.gpus()
    assert (one.uuid, one.label, one.free) == ("MIG-1", "gpu 0 slice 0", 16 * GIB)
    assert (two.uuid, two.label, two.free) == ("MIG-2", "gpu 0 slice 1", 10 * GIB)
    assert [process.pid for process in one.processes] == [os.getpid()]
    assert (whole.uuid, whole.mig) == ("GPU-b", "")
    assert one.missing["utilization"] == "Not Supported"


def test_a_fault_of_a_gpu_is_one_of_all_its_slices(stub: StubNvml) -> None:
    stub.gpus[0].slices = {"MIG-1": 20.0, "MIG-2": 10.0}
    stub.xids.append((0, 95))
    stub.write()
    with Reader(stub) as reader:
        faults = [bool(gpu.fault) for gpu in reader.gpus()]
    assert faults == [True, True, False]


def test_inventory_without_a_driver_is_empty() -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    inventory = GpuInventory()
    assert inventory.read() == ()
    assert inventory.driver.startswith("no GPUs: NVML Shared Library Not Found")
