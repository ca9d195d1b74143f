"""The last look at GPUs before a start."""

import asyncio
import dataclasses
import getpass
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.engine_types import Place
from launcher.host import allocation
from launcher.host.allocation import Allocation
from launcher.host.gpu_turns import GpuTurns
from modelserver.inventory import GIB, Gpu, GpuProcess
from modelserver.values import EngineSpec, Kind, ModelSpec
from tests.support import processes


def model(gpus: int = 1, gib: float = 0, share: bool = False) -> ModelSpec:
    return ModelSpec(
        "m",
        Kind.COMPLETION,
        "/m",
        "command",
        gpus=gpus,
        gpu_memory_gib=gib,
        share_gpu=share,
    )


def spec(number: int, *uuids: str, **more) -> EngineSpec:
    return EngineSpec(f"m-{number}", "m", "a", uuids=uuids, **more)


def held(index: int, gib: int, *, pid: int = 4711, engine: str = "", **more) -> Gpu:
    used = gib * GIB
    by = GpuProcess(pid, used, "anna", "python", engine)
    total = 80 * GIB
    return Gpu(
        index,
        f"GPU-{index}",
        total=total,
        used=used,
        free=total - used,
        processes=(by,),
        **more,
    )


#: Other tests have GPUs of the same names.
TURNS = f"\0test-{os.getpid()}-"


class Site:
    """One host's GPUs, which may change between two looks."""

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus or processes.gpus(2)
        self.allocation = Allocation("a", lambda: self.gpus, GpuTurns(TURNS))
        SITES.append(self)

    def choose(self, wish: EngineSpec, what: ModelSpec | None = None) -> Place | str:
        return asyncio.run(self.allocation.allocate(wish, what or model()))


#: The sites of the present test.
SITES: list[Site] = []


@pytest.fixture(autouse=True)
def end_of_turns() -> Iterator[None]:
    yield
    while SITES:
        for number in range(4):
            SITES[-1].allocation.release(f"m-{number}")
        SITES.pop()


def test_a_place_tells_the_adapter_all_that_it_needs() -> None:
    site = Site(processes.gpus(1)[0], held(1, 20))
    place = site.choose(spec(0, "GPU-1", "GPU-0"), model(2, gib=50))
    assert isinstance(place, Place)
    assert (place.gpus, place.uuids) == ((1, 0), ("GPU-1", "GPU-0"))
    assert place.visible == "1,0"
    assert (place.free_bytes, place.total_bytes) == (60 * GIB, 80 * GIB)
    assert place.promised_bytes == 50 * GIB


@pytest.mark.parametrize("other", [{"mig": "0"}, {"total": 0}])
def test_cuda_is_told_uuids_where_it_counts_the_gpus_otherwise(other: Any) -> None:
    first, second = processes.gpus(2)
    site = Site(dataclasses.replace(first, uuid="GPU-x", **other), second)
    place = site.choose(spec(0, "GPU-1"))
    assert isinstance(place, Place)
    assert place.visible == "GPU-1"


def test_a_place_has_the_engines_number() -> None:
    place = Site().choose(spec(3), model(0))
    assert isinstance(place, Place)
    assert place.index == 3


def test_a_model_stays_on_its_hosts() -> None:
    kept = dataclasses.replace(model(0), hosts=("b", "c"))
    assert Site().choose(spec(0), kept) == "its model's hosts are b, c"


def test_without_gpus_there_is_nothing_to_look_at() -> None:
    place = Site(held(0, 80)).choose(spec(0), model(gpus=0))
    assert isinstance(place, Place)
    assert place.visible == ""


def test_a_gpu_that_somebody_took_meanwhile_is_refused_with_the_figures() -> None:
    site = Site(held(0, 66))
    assert site.choose(spec(0, "GPU-0"), model(gib=70)) == (
        "needs 1 GPU with 70 GiB free; gpu 0 has 14 GiB free: 66 GiB held by pid 4711 "
        "python (anna)"
    )


def test_it_is_given_once_it_is_free_again() -> None:
    site = Site(held(0, 66))
    assert isinstance(site.choose(spec(0, "GPU-0")), str)
    site.gpus = processes.gpus(1)
    assert isinstance(site.choose(spec(0, "GPU-0")), Place)


def test_a_gpu_that_is_given_is_not_given_twice() -> None:
    site = Site()
    assert isinstance(site.choose(spec(0, "GPU-0")), Place)
    refusal = site.choose(spec(1, "GPU-0"))
    assert refusal == "needs 1 free GPU; gpu 0 has engine m-0"
    site.allocation.release("m-0")
    assert isinstance(site.choose(spec(1, "GPU-0")), Place)


def test_pinned_gpus_are_taken_in_their_order_if_control_did_not_name_any() -> None:
    place = Site().choose(spec(0, gpus=(1, 0)))
    assert isinstance(place, Place)
    assert place.uuids == ("GPU-1", "GPU-0")


def test_a_pinned_gpu_that_is_not_there_is_named() -> None:
    reason = Site().choose(spec(0, gpus=(3,)))
    assert reason == "gpu 3 is pinned, and host a has 2 GPUs"


def test_a_gpu_that_left_is_named() -> None:
    assert Site().choose(spec(0, "GPU-9")) == "gpu GPU-9 is not on host a any more"


def test_without_gpus_from_control_it_waits() -> None:
    reason = Site().choose(spec(0))
    assert reason == "control has found no GPUs for it yet; see modelserver status"


def test_a_faulty_gpu_is_refused() -> None:
    site = Site(Gpu(0, "GPU-0", total=80 * GIB, free=80 * GIB, fault="XID 79"))
    reason = site.choose(spec(0, "GPU-0"))
    assert reason == "needs 1 free GPU; gpu 0 is faulty: XID 79"


def test_engines_that_share_load_one_after_the_other() -> None:
    site, small = Site(), model(gib=20, share=True)
    assert isinstance(site.choose(spec(0, "GPU-0"), small), Place)
    assert site.choose(spec(1, "GPU-0"), small) == (
        "waits until engine m-0 has loaded on gpu 0"
    )
    site.allocation.mark_loaded("m-0")
    assert isinstance(site.choose(spec(1, "GPU-0"), small), Place)


def test_a_promise_that_is_not_filled_yet_is_not_free() -> None:
    site, large = Site(), model(gib=50, share=True)
    site.allocation.adopt(
        spec(0), large, Place(1, uuids=("GPU-0",)), loaded=True, mark="1"
    )
    assert site.choose(spec(1, "GPU-0"), large) == (
        "needs 1 GPU with 50 GiB free; gpu 0 has 30 GiB free: 50 GiB promised to "
        "engine m-0"
    )


def test_memory_that_an_engine_of_ours_holds_counts_once() -> None:
    small = model(gib=30, share=True)
    site = Site(held(0, 25, engine="m-0"))
    site.allocation.adopt(
        spec(0), small, Place(1, uuids=("GPU-0",)), loaded=True, mark="1"
    )
    assert isinstance(site.choose(spec(1, "GPU-0"), model(gib=50, share=True)), Place)


@pytest.mark.parametrize("place", [Place(1, (1,)), Place(1, uuids=("GPU-1",))])
def test_an_adopted_engine_keeps_its_gpu(place: Place) -> None:
    site = Site()
    site.allocation.adopt(spec(0), model(), place, loaded=True, mark="1")
    assert isinstance(site.choose(spec(1, "GPU-0")), Place)
    refusal = site.choose(spec(2, "GPU-1"))
    assert refusal == "needs 1 free GPU; gpu 1 has engine m-0"


def test_chosen_port_is_free_and_not_promised() -> None:
    port = allocation.find_port(taken=())
    assert port
    assert allocation.is_port_free(port)
    everything = range(allocation.FIRST_PORT, allocation.LAST_PORT + 1)
    assert allocation.find_port(taken=everything) is None


def test_an_engine_of_several_hosts_has_a_port_where_they_meet() -> None:
    site = Site(*processes.gpus(2))
    wide = dataclasses.replace(model(2), nodes=2)
    assert asyncio.run(site.allocation.find_refusal(spec(0), wide)).startswith(
        "control has found no GPUs for it yet"
    )
    assert asyncio.run(site.allocation.find_refusal(spec(0, "GPU-0"), wide)) == ""
    ports = set()
    for number in (0, 1):
        place = site.choose(spec(number, f"GPU-{number}"), wide)
        assert isinstance(place, Place)
        ports |= {place.port, place.meeting_port}
    assert len(ports - {0}) == 4
    alone = site.choose(spec(1, "GPU-1"), model())
    assert isinstance(alone, Place)
    assert alone.meeting_port == 0


def test_holder_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not allocation.is_port_free(port)
        assert allocation.port_holder(port).startswith(f"pid {os.getpid()} (")
    assert allocation.is_port_free(port)


def test_launchers_of_one_host_load_on_a_gpu_one_at_a_time() -> None:
    ours, theirs = Site(), Site()
    shared = model(gib=20, share=True)
    assert isinstance(ours.choose(spec(0, "GPU-0"), shared), Place)
    user = getpass.getuser()
    assert theirs.choose(spec(0, "GPU-0"), shared) == (
        f"waits until the launcher pid {os.getpid()} ({user}) has loaded an engine on "
        "gpu 0"
    )
    assert isinstance(theirs.choose(spec(1, "GPU-1"), shared), Place)
    ours.allocation.mark_loaded("m-0")
    assert isinstance(theirs.choose(spec(0, "GPU-0"), shared), Place)


#: Another launcher, which keeps GPU-0 until it is told to end, with its engine.
KEEPER = """
import subprocess, sys
from launcher.host.gpu_turns import GpuTurns
turns = GpuTurns("\\0" + sys.argv[1])
kept = turns.keep("other-0", ["GPU-0"], "0123456789abcdef")
engine = subprocess.Popen(["sleep", "300"], pass_fds=kept)
print(engine.pid, turns.find_kept(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def keeper() -> Iterator["subprocess.Popen[bytes]"]:
    argv = [sys.executable, "-c", KEEPER, TURNS.replace("\0", "")]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, cwd=processes.ROOT) as other:
        yield other
        other.communicate()


def test_a_gpu_that_an_engine_of_another_launcher_needs_whole_is_known_by_name(
    keeper: "subprocess.Popen[bytes]",
) -> None:
    turns = GpuTurns(TURNS)
    assert keeper.stdout
    # Who keeps one sees itself as no other.
    pid, rest = keeper.stdout.readline().split(maxsplit=1)
    assert rest == b"{}\n"
    who = f"launcher pid {keeper.pid} ({getpass.getuser()})"
    kept = turns.find_kept()
    assert kept["GPU-0"].startswith(f"the {who} has an engine on it that needs all")
    turns.keep("m-0", ["GPU-0", "GPU-1"], "f" * 32)
    assert turns.find_kept() == kept
    turns.give_back("m-0")
    keeper.kill()
    keeper.wait()
    # Its engine goes on.
    (why,) = turns.find_kept().values()
    assert why.startswith(f"an engine of the {who} is on it and needs all of it")
    assert why.endswith("grep -l MARK=0123456789ab /proc/*/environ")
    # Whoever goes on with that engine leaves its GPU to no other.
    adopter = GpuTurns(TURNS, lambda: ["0123456789abcdef"])
    assert adopter.find_kept() == {}
    os.kill(int(pid), signal.SIGKILL)
    processes.eventually(lambda: not turns.find_kept())


def test_an_engine_keeps_whole_gpus_from_its_start_to_its_end() -> None:
    site = Site()
    for share in (False, True):
        place = site.choose(spec(0, "GPU-0"), model(share=share, gib=20))
        assert isinstance(place, Place)
        assert not names_of_kept()
        kept = site.allocation.keep("m-0", "1" * 32)
        assert len(kept) == len(names_of_kept()) == (not share)
        site.allocation.mark_loaded("m-0")
        assert len(names_of_kept()) == (not share)
        site.allocation.release("m-0")
        assert not names_of_kept()
        adopted = model(share=share)
        site.allocation.adopt(spec(0), adopted, place, loaded=True, mark="1" * 32)
        assert len(names_of_kept()) == (not share)
        site.allocation.release("m-0")


def test_what_is_left_of_an_engine_keeps_its_gpus_from_the_next_as_well() -> None:
    site = Site()
    place = site.choose(spec(0, "GPU-0"))
    assert isinstance(place, Place)
    kept = site.allocation.keep("m-0", "1" * 32)
    with subprocess.Popen(["sleep", "300"], pass_fds=kept) as left:
        site.allocation.release("m-0")
        (why,) = GpuTurns(TURNS).find_kept().values()
        assert "or what is left of that engine" in why
        left.kill()
    assert GpuTurns(TURNS).find_kept() == {}


def names_of_kept() -> list[str]:
    sockets = Path("/proc/net/unix").read_text().split()
    return [name for name in sockets if name.startswith(f"@{TURNS[1:]}has-")]


def test_what_another_launcher_has_loaded_before_its_turn_ended_is_seen() -> None:
    looks = iter([processes.gpus(1), (held(0, 70),)])
    late = Allocation("a", lambda: next(looks), GpuTurns(TURNS))
    refused = asyncio.run(late.allocate(spec(0, "GPU-0"), model()))
    assert refused == (
        "needs 1 free GPU; gpu 0 has 10 GiB free: 70 GiB held by pid 4711 python (anna)"
    )
    site = Site()
    assert isinstance(site.choose(spec(0, "GPU-0")), Place)


def test_an_adopted_engine_that_still_loads_keeps_its_turn() -> None:
    ours, theirs = Site(), Site()
    place = Place(21_000, (0,), ("GPU-0",))
    ours.allocation.adopt(spec(0, "GPU-0"), model(), place, loaded=False, mark="1")
    assert "has loaded an engine on gpu 0" in str(theirs.choose(spec(1, "GPU-0")))
