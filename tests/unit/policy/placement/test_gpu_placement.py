"""On which GPUs engines are placed, and what is said where they fit nowhere."""

from dataclasses import replace

import pytest

from modelserver.inventory import GIB, Gpu, Host
from modelserver.policy.placement.planning import PlacementPlan, plan
from modelserver.values import (
    EngineSpec,
    EngineState,
)
from tests.support.placement import (
    after,
    fleet,
    gpu,
    gpus_of,
    host,
    model,
    report,
    sliced,
    spec,
    waiting,
)


def test_a_group_is_on_one_host() -> None:
    hosts = [host("a", 0, 0, 0), host("b", 0, 0, 0, 0)]
    assert gpus_of(fleet(model("m", 4), hosts=hosts)) == {"m-0": "b0 b1 b2 b3"}


def test_gpus_of_two_hosts_make_no_group() -> None:
    hosts = [host("a", 0), host("b", 0)]
    assert waiting(fleet(model("m", 2), hosts=hosts)) == {
        "m-0": "needs 2 free GPUs; host a: 1 of 1 GPU fits; host b: 1 of 1 GPU fits"
    }


def test_memory_of_strangers_is_not_free() -> None:
    hosts = [host("a", 66, 0), host("b", 20, 10)]
    found = fleet(model("m", 2, gib=60), hosts=hosts)
    assert gpus_of(found) == {"m-0": "b0 b1"}


def test_the_reason_names_who_has_the_memory() -> None:
    found = fleet(model("m", 2, gib=70), hosts=[host("a", 66, 0), Host("b")])
    assert waiting(found) == {
        "m-0": "needs 2 GPUs with 70 GiB free; host a: 1 of 2 GPUs fits, gpu 0 has 14 "
        "GiB free: 66 GiB held by pid 4711 python (anna); host b has no GPUs"
    }


def test_a_reason_names_few_hosts_and_gpus() -> None:
    hosts = [host(f"h{number}", *[66] * 8) for number in range(9)]
    reason = waiting(fleet(model("m"), hosts=hosts))["m-0"]
    assert reason.count("host h") == 3
    assert reason.count("gpu ") == 12
    assert reason.endswith("and 4 more; and 6 more hosts")


def test_a_whole_gpu_is_one_of_which_nobody_has_much() -> None:
    found = fleet(model("m"), hosts=[host("a", 13, 12)])
    assert gpus_of(found) == {"m-0": "a1"}


def test_a_faulty_gpu_is_never_used() -> None:
    bad = replace(gpu("a", 0), fault="XID 79, fallen off the bus")
    found = fleet(model("m", gib=1, share=True), hosts=[Host("a", (bad,))])
    assert after(found) == {}
    assert waiting(found)["m-0"] == (
        "needs 1 GPU with 1 GiB free; host a: gpu 0 is faulty: XID 79, fallen off the "
        "bus"
    )


def test_a_gpu_that_does_not_answer_is_not_used() -> None:
    silent = Gpu(0, "a0", missing={"memory": "Not Supported"})
    found = fleet(model("m"), hosts=[Host("a", (silent,))])
    assert "gpu 0 does not answer (Not Supported)" in waiting(found)["m-0"]


def test_engines_of_a_model_are_spread_over_hosts() -> None:
    hosts = [host("a", 0, 0), host("b", 0, 0)]
    assert gpus_of(fleet(model("m", engines=2), hosts=hosts)) == {
        "m-0": "a0",
        "m-1": "b0",
    }


def test_an_engine_that_was_wished_without_gpus_keeps_those_it_uses() -> None:
    wish = spec("m-0", "a")
    runs = replace(report(wish), gpus=(0,))
    found = fleet(
        model("m", engines=2), hosts=[host("a", 0, 0)], wishes=[wish], engines=[runs]
    )
    assert gpus_of(found) == {"m-0": "", "m-1": "a1"}


def test_an_engine_whose_host_is_away_is_expected_there() -> None:
    wish = spec("m-0", "away", "x0")
    found = fleet(
        model("m"),
        hosts=[host("a", 0)],
        pins=[replace(wish, uuids=())],
        wishes=[wish],
        engines=[report(wish)],
    )
    assert after(found)["m-0"].host == "away"


def test_a_small_model_takes_the_host_that_is_broken_up_already() -> None:
    hosts = [host("a", 0, 0, 0, 0), host("b", 0, 0, 0, 66)]
    found = fleet(model("small"), model("big", 4), hosts=hosts)
    assert gpus_of(found) == {"big-0": "a0 a1 a2 a3", "small-0": "b0"}
    assert gpus_of(fleet(model("small"), hosts=hosts)) == {"small-0": "b0"}


def test_big_needs_come_first_whatever_their_place_in_the_file() -> None:
    found = fleet(model("small", engines=2), model("big", 2), hosts=[host("a", 0, 0)])
    assert gpus_of(found) == {"big-0": "a0 a1"}
    assert waiting(found)["small-0"] == (
        "needs 1 free GPU; host a: gpu 0 has engine big-0, gpu 1 has engine big-0"
    )


def test_sharing_engines_pack_onto_the_fullest_gpu_that_fits() -> None:
    models = [model(name, gib=20, share=True) for name in "xyz"]
    found = fleet(*models, hosts=[host("a", 0, 30, 70)])
    assert gpus_of(found) == {"x-0": "a1", "y-0": "a1", "z-0": "a0"}


def test_no_more_is_promised_than_is_free() -> None:
    found = fleet(model("m", gib=30, share=True, engines=3), hosts=[host("a", 0)])
    assert len(after(found)) == 2
    assert waiting(found)["m-2"] == (
        "needs 1 GPU with 30 GiB free; host a: gpu 0 has 20 GiB free: 30 GiB promised "
        "to engine m-0, 30 GiB promised to engine m-1"
    )


def test_who_does_not_share_has_its_gpu_alone() -> None:
    models = [model("x", gib=20), model("y", gib=20, share=True)]
    found = fleet(*models, hosts=[host("a", 0)])
    assert gpus_of(found) == {"x-0": "a0"}


def test_a_running_engine_counts_with_the_greater_of_promise_and_what_it_holds() -> (
    None
):
    first = spec("x-0", "a", "a0")
    models = [model("x", gib=30, share=True), model("y", gib=40, share=True)]
    for holds, fits in ((25, True), (30, True), (41, False)):
        here = Host("a", (gpu("a", 0, holds, engine="x-0"),))
        found = fleet(*models, hosts=[here], wishes=[first], engines=[report(first)])
        assert ("y-0" in after(found)) is fits, holds


@pytest.mark.parametrize(
    "state", [EngineState.STARTING, EngineState.READY, EngineState.DRAINING]
)
def test_what_has_been_started_does_not_move(state: EngineState) -> None:
    wish = spec("m-0", "a", "a0")
    hosts = [host("a", 79), host("b", 0)]
    found = fleet(model("m"), hosts=hosts, wishes=[wish], engines=[report(wish, state)])
    assert plan(found) == PlacementPlan(())


@pytest.mark.parametrize("state", [EngineState.PENDING, EngineState.BACKOFF])
def test_what_has_not_is_placed_anew_if_its_gpu_is_taken(state: EngineState) -> None:
    wish = spec("m-0", "a", "a0")
    hosts = [host("a", 79), host("b", 0)]
    found = fleet(model("m"), hosts=hosts, wishes=[wish], engines=[report(wish, state)])
    assert gpus_of(found) == {"m-0": "b0"}


def test_an_engine_whose_gpu_is_taken_prefers_its_host() -> None:
    wish = spec("m-0", "b", "b0")
    hosts = [host("a", 0, 0), host("b", 79, 0)]
    found = fleet(model("m"), hosts=hosts, wishes=[wish])
    assert gpus_of(found) == {"m-0": "b1"}


def test_an_engine_whose_gpu_is_taken_and_that_fits_nowhere_waits_without_one() -> None:
    wish = spec("m-0", "a", "a0")
    found = fleet(model("m"), hosts=[host("a", 79)], wishes=[wish])
    assert after(found) == {"m-0": spec("m-0", "a")}
    assert "gpu 0 has 1 GiB free" in waiting(found)["m-0"]


def test_an_engine_that_has_died_finds_its_own_memory_free() -> None:
    wish = spec("m-0", "a", "a0")
    here = Host("a", (gpu("a", 0, 70, engine="m-0"),))
    died = report(wish, EngineState.BACKOFF)
    found = fleet(model("m"), hosts=[here], wishes=[wish], engines=[died])
    assert plan(found) == PlacementPlan(())


def test_engines_of_a_lost_host_are_placed_where_there_is_room() -> None:
    wishes = [spec("m-0", "lost", "x0"), spec("m-1", "lost", "x1")]
    found = fleet(model("m", engines=2), hosts=[host("a", 0)], wishes=wishes)
    assert gpus_of(found) == {"m-0": "a0", "m-1": "x1"}
    assert waiting(found) == {
        "m-1": "the launcher of host lost does not report; needs 1 free GPU; host a: "
        "gpu 0 has engine m-0"
    }


def test_a_running_engine_goes_on_if_the_changed_fleet_has_no_place_for_it() -> None:
    wish = spec("m-0", "a", "a0")
    here = Host("a", (gpu("a", 0, 70, engine="m-0"),))
    found = fleet(model("m", 8), hosts=[here], wishes=[wish], engines=[report(wish)])
    assert after(found) == {"m-0": wish}
    assert waiting(found)["m-0"].startswith("needs 8 free GPUs; host a: ")


def test_a_running_engine_that_shall_have_more_gpus_keeps_its_own_among_them() -> None:
    wish = spec("m-0", "a", "a0")
    here = Host("a", (gpu("a", 0, 70, engine="m-0"), gpu("a", 1)))
    found = fleet(model("m", 2), hosts=[here], wishes=[wish], engines=[report(wish)])
    assert gpus_of(found) == {"m-0": "a0 a1"}


def test_pinned_gpus_become_uuids_in_their_order() -> None:
    pin = EngineSpec("m-0", "m", "a", gpus=(1, 0))
    found = fleet(model("m", 2), hosts=[host("a", 0, 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "a1 a0"}


def test_a_pin_on_a_gpu_that_is_not_there_waits_for_it() -> None:
    pin = EngineSpec("m-0", "m", "a", gpus=(7,))
    found = fleet(model("m"), hosts=[host("a", 0, 0)], pins=[pin])
    assert waiting(found) == {"m-0": "gpu 7 is pinned, and host a has 2 GPUs"}


def test_a_pin_on_a_gpu_of_somebody_else_keeps_its_place_and_says_why_it_waits() -> (
    None
):
    pin = EngineSpec("m-0", "m", "a", gpus=(0,))
    found = fleet(model("m"), hosts=[host("a", 66), host("b", 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "a0"}
    assert waiting(found) == {
        "m-0": "needs 1 free GPU; host a: gpu 0 has 14 GiB free: 66 GiB held by pid "
        "4711 python (anna)"
    }


def test_a_pin_to_a_host_takes_the_gpus_that_suit_best() -> None:
    pin = EngineSpec("m-0", "m", "a")
    found = fleet(model("m"), hosts=[host("a", 66, 0), host("b", 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "a1"}


def test_a_pin_of_gpus_without_a_host_finds_one_where_they_are_free() -> None:
    pin = EngineSpec("m-0", "m", "", gpus=(1,))
    found = fleet(model("m"), hosts=[host("a", 0, 66), host("b", 0, 0)], pins=[pin])
    assert gpus_of(found) == {"m-0": "b1"}


def test_a_slice_of_a_gpu_serves_one_engine_and_no_group() -> None:
    here = sliced("a", 2)
    assert gpus_of(fleet(model("m", engines=2), hosts=[here])) == {
        "m-0": "s0",
        "m-1": "s1",
    }
    assert (
        "gpu 0 slice 0 is a MIG slice"
        in waiting(fleet(model("m", 2), hosts=[here]))["m-0"]
    )


def test_a_pin_on_a_gpu_that_mig_divides_says_so() -> None:
    here = sliced("a", 2)
    pin = EngineSpec("m-0", "m", "a", gpus=(0,))
    assert waiting(fleet(model("m"), hosts=[here], pins=[pin])) == {
        "m-0": "gpu 0 is pinned, and MIG divides it into 2 slices; leave gpus out"
    }


def test_without_a_launcher_the_reason_is_that() -> None:
    assert waiting(fleet(model("m"), hosts=[])) == {
        "m-0": "no launcher reports; start one on each host with engines"
    }


def test_hosts_that_are_drained_are_not_said_to_be_silent() -> None:
    here = fleet(model("m"), hosts=[host("a", 0), host("b", 0)])
    closed = {"a": "host a is drained by ada", "b": "host b is drained by ada"}
    assert waiting(replace(here, drained_hosts=closed)) == {
        "m-0": "only drained hosts could have it now: a, b; modelserver undrain-host "
        "opens one again"
    }
    own = replace(here, specs=(replace(model("m"), hosts=("a",)),))
    why = waiting(replace(own, drained_hosts={"a": closed["a"]}))["m-0"]
    assert why.startswith("only drained hosts could have it now: a; ")


def test_an_engine_that_died_twice_at_its_start_tries_other_gpus():
    wish = spec("m-0", "a", "a0")
    failed = replace(report(wish, EngineState.BACKOFF), failed_on=("a0",))
    once = replace(failed, failed_on=())
    two = [host("a", 0, 0)]
    assert gpus_of(fleet(model("m"), hosts=two, wishes=[wish], engines=[once])) == {
        "m-0": "a0"
    }
    assert gpus_of(fleet(model("m"), hosts=two, wishes=[wish], engines=[failed])) == {
        "m-0": "a1"
    }
    # It has been moved and waits there for its next start.
    moved = replace(failed, failed_on=("a9",))
    assert gpus_of(fleet(model("m"), hosts=two, wishes=[wish], engines=[moved])) == {
        "m-0": "a0"
    }
    # There are no others: it stays.
    alone = fleet(model("m"), hosts=[host("a", 0)], wishes=[wish], engines=[failed])
    assert gpus_of(alone) == {"m-0": "a0"}


def test_an_engine_that_died_twice_at_its_start_lets_its_gpus_go():
    wish = spec("m-0", "a", "a0")
    failed = replace(report(wish, EngineState.BACKOFF), failed_on=("a0",))
    both = fleet(
        *(model("m"), model("n")),
        hosts=[host("a", 0)],
        wishes=[wish],
        engines=[failed],
    )
    assert gpus_of(both)["n-0"] == "a0"
    assert "gpu 0 has engine n-0" in waiting(both)["m-0"]


def test_memory_that_nobody_can_name_is_that_of_started_engines_once() -> None:
    shared = model("m", gib=30, share=True, engines=2)
    wish = spec("m-0", "a", "a0")
    nameless = replace(gpu("a", 0, 30), processes=(), unseen=30 * GIB)

    def second(state: EngineState, used: Gpu = nameless) -> bool:
        engines = [report(wish, state)]
        hosts = [Host("a", (used,))]
        return "m-1" in gpus_of(
            fleet(shared, hosts=hosts, wishes=[wish], engines=engines)
        )

    assert second(EngineState.READY)
    # It holds nothing: the memory is somebody else's.
    assert not second(EngineState.PENDING)
    assert not second(EngineState.FATAL)
    assert not second(EngineState.READY, replace(nameless, unseen=0))
    more = replace(nameless, used=55 * GIB, free=25 * GIB, unseen=55 * GIB)
    assert not second(EngineState.READY, more)


def test_vllm_gets_no_slices() -> None:
    vllm = replace(model("m"), engine="vllm")
    assert waiting(fleet(vllm, hosts=[sliced("a", 1)])) == {
        "m-0": "needs 1 free GPU; host a: gpu 0 slice 0 is a MIG slice, on which vLLM "
        "has not been run"
    }
    assert gpus_of(fleet(model("m"), hosts=[sliced("a", 1)])) == {"m-0": "s0"}


def test_a_gpu_that_its_launcher_leaves_out_is_given_to_nobody() -> None:
    left_out = "the launcher has CUDA_VISIBLE_DEVICES=1"
    there = Host("a", (gpu("a", 0, left_out=left_out), gpu("a", 1)))
    found = fleet(model("m", engines=2), hosts=[there])
    assert gpus_of(found) == {"m-0": "a1"}
    assert f"gpu 0 is left out: {left_out}" in waiting(found)["m-1"]
