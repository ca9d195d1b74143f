"""Fleets whose hosts and GPUs differ: which kind an engine gets, and which pairs."""

from dataclasses import replace

import pytest

from modelserver.inventory import GIB, Gpu, Host
from modelserver.policy.placement.needs import Need
from modelserver.policy.placement.rooms import GpuRoom, choose_linked, count_links
from modelserver.values import EngineState
from tests.support.placement import (
    after,
    fleet,
    gpu,
    gpus_of,
    model,
    report,
    spec,
    waiting,
)

A10, H100 = ("NVIDIA A10", 22), ("NVIDIA H100 80GB HBM3", 79)


def card(host: str, index: int, kind: tuple[str, int], *links: int) -> Gpu:
    name, total = kind
    size = {"total": total * GIB, "free": total * GIB}
    return gpu(host, index, name=name, links=links, **size)


#: Of 22, 22 and 79 GiB on one host, of 79 GiB on the other.
SMALL = Host("a", (card("a", 0, A10), card("a", 1, A10), card("a", 2, H100)))
LARGE = Host("b", (card("b", 0, H100),))


def test_a_model_may_name_its_gpus() -> None:
    named = replace(model("m"), gpu_name="h100")
    assert gpus_of(fleet(named, hosts=[SMALL])) == {"m-0": "a2"}
    other = replace(model("m"), gpu_name="B200")
    assert waiting(fleet(other, hosts=[LARGE])) == {
        "m-0": "needs 1 free GPU (B200); host b: gpu 0 is NVIDIA H100 80GB HBM3 with "
        "79 GiB"
    }


def test_a_model_that_says_how_large_its_gpus_are_gets_the_smallest_of_these() -> None:
    hosts = [LARGE, SMALL]
    assert gpus_of(fleet(replace(model("m"), min_gpu_gib=20), hosts=hosts)) == {
        "m-0": "a0"
    }
    assert gpus_of(fleet(replace(model("m"), min_gpu_gib=40), hosts=[SMALL])) == {
        "m-0": "a2"
    }
    larger = replace(model("m", gib=10), min_gpu_gib=90)
    assert (
        "needs 1 GPU (90 GiB or more) with 10 GiB free"
        in (waiting(fleet(larger, hosts=hosts))["m-0"])
    )


def test_a_model_that_does_not_say_gets_the_largest() -> None:
    assert gpus_of(fleet(model("m"), hosts=[SMALL])) == {"m-0": "a2"}


def test_the_largest_need_comes_first() -> None:
    models = [model("any"), replace(model("big"), min_gpu_gib=40)]
    assert gpus_of(fleet(*models, hosts=[SMALL])) == {"any-0": "a0", "big-0": "a2"}


def test_all_gpus_of_an_engine_are_of_one_kind() -> None:
    assert gpus_of(fleet(model("m", 2), hosts=[SMALL])) == {"m-0": "a0 a1"}
    mixed = Host("c", (card("c", 0, A10), card("c", 1, H100)))
    assert waiting(fleet(model("m", 2), hosts=[mixed])) == {
        "m-0": "needs 2 free GPUs; host c: 2 of 2 GPUs fit, of different kinds"
    }


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_model_may_name_its_hosts(gpus: int) -> None:
    kept = replace(model("m", gpus, engines=1), hosts=("b",))
    assert after(fleet(kept, hosts=[SMALL, LARGE]))["m-0"].host == "b"
    assert waiting(fleet(kept, hosts=[SMALL])) == {
        "m-0": "no launcher of its model's hosts reports: b"
    }


def test_a_pin_of_gpus_keeps_to_the_hosts_of_its_model() -> None:
    kept = replace(model("m"), hosts=("b",))
    pin = spec("m-0", "", gpus=(0,))
    assert gpus_of(fleet(kept, hosts=[SMALL, LARGE], pins=[pin])) == {"m-0": "b0"}


def test_what_waits_on_a_host_that_its_model_left_out_goes_elsewhere() -> None:
    kept = replace(model("m"), hosts=("b",))
    wish = spec("m-0", "a", "a0")
    held = report(wish, EngineState.PENDING)
    found = fleet(kept, hosts=[SMALL, LARGE], wishes=[wish], engines=[held])
    assert after(found)["m-0"].host == "b"
    serving = fleet(kept, hosts=[SMALL, LARGE], wishes=[wish], engines=[report(wish)])
    assert after(serving)["m-0"].host == "a"


def test_an_engine_that_died_of_memory_goes_to_a_larger_gpu() -> None:
    wish = spec("m-0", "a", "a0")
    failed = replace(report(wish, EngineState.BACKOFF), failed_on=("a0",))
    sized = replace(model("m"), min_gpu_gib=20)

    def goes_to(*hosts: Host) -> dict[str, str]:
        return gpus_of(fleet(sized, hosts=hosts, wishes=[wish], engines=[failed]))

    assert goes_to(SMALL) == {"m-0": "a2"}
    assert goes_to(Host("a", SMALL.gpus[:2]), LARGE) == {"m-0": "b0"}
    assert goes_to(Host("a", SMALL.gpus[:2])) == {"m-0": "a1"}
    assert goes_to(Host("a", SMALL.gpus[:1])) == {"m-0": "a0"}


#: 0 and 2 are linked, and 1 and 3.
PAIRS = [(0, 2), (1, 3), (2, 0), (3, 1)]


def paired(host: str = "a", *used: int) -> Host:
    gpus = (card(host, index, H100, link) for index, link in PAIRS)
    full = {"free": 0, "used": 79 * GIB}
    return Host(host, tuple(replace(g, **full) if g.index in used else g for g in gpus))


def test_linked_gpus_come_before_strangers() -> None:
    assert gpus_of(fleet(model("m", 2), hosts=[paired()])) == {"m-0": "a0 a2"}
    assert gpus_of(fleet(model("m", 2), hosts=[paired("a", 0)])) == {"m-0": "a1 a3"}
    assert gpus_of(fleet(model("m", 2), hosts=[paired("a", 0, 1)])) == {"m-0": "a2 a3"}
    loose = Host("0", (card("0", 0, H100), card("0", 1, H100)))
    assert gpus_of(fleet(model("m", 2), hosts=[loose, paired()])) == {"m-0": "a0 a2"}


def test_a_single_gpu_is_taken_from_a_pair_that_is_broken_already() -> None:
    assert gpus_of(fleet(model("m"), hosts=[paired("a", 1)])) == {"m-0": "a3"}


def rooms(*links: tuple[int, ...]) -> list[GpuRoom]:
    return [GpuRoom(card("a", n, H100, *each)) for n, each in enumerate(links)]


def chosen(number: int, found: list[GpuRoom]) -> list[int]:
    return sorted(room.gpu.index for room in choose_linked(found, number))


def test_a_group_has_the_most_links_that_can_be_had() -> None:
    ring = rooms((1, 3), (0, 2), (1, 3), (2, 0))
    assert count_links(ring) == 4
    assert chosen(3, ring) == [0, 1, 2]
    lone_first = rooms((), (2, 3), (1, 3), (1, 2))
    assert chosen(3, lone_first) == [1, 2, 3]
    assert chosen(2, rooms((), (), ())) == [0, 1]
    switched = rooms(*[tuple(range(8))] * 8)
    assert chosen(4, switched) == [0, 1, 2, 3]


def test_a_need_in_words() -> None:
    assert str(Need(2, 70 * GIB, least=80 * GIB, name="H100")) == (
        "2 GPUs (H100, 80 GiB or more) with 70 GiB free"
    )
