"""The commands of the nodes of an engine that takes several hosts."""

from dataclasses import replace

import pytest

from launcher.engine_types import Launch, Place, adapter
from launcher.engine_types.base import Meeting
from launcher.engine_types.vllm import meeting_flags
from modelserver.errors import ConfigurationError
from modelserver.inventory import GIB
from modelserver.values import Kind, ModelSpec
from tests.support.launches import HOME, PYTHON

LEADER = Meeting(0, 2, "10.0.0.7", 21007, "10.0.0.7", "eth0")
SECOND = replace(LEADER, node=1, address="10.0.0.8", interface="ib0")


def launch(engine: str, meeting: Meeting | None, **values: object) -> Launch:
    model = ModelSpec(
        "big", Kind.COMPLETION, "Qwen/Qwen3-235B", engine, gpus=8, nodes=2
    )
    place = Place(
        21005,
        (0, 1, 2, 3),
        uuids=("GPU-a", "GPU-b", "GPU-c", "GPU-d"),
        free_bytes=80 * GIB,
        total_bytes=80 * GIB,
        meeting=meeting,
    )
    model = replace(model, interpreter=PYTHON, max_running=48, **values)
    return adapter(engine).launch(model, place, HOME)


def after(flag: str, launch: Launch, words: int) -> tuple[str, ...]:
    at = launch.argv.index(flag)
    return launch.argv[at : at + words]


def test_ranks_of_sglang():
    leads, follows = launch("sglang", LEADER), launch("sglang", SECOND)
    assert after("--tp-size", leads, 8) == (
        *("--tp-size", "8", "--nnodes", "2", "--node-rank", "0"),
        *("--dist-init-addr", "10.0.0.7:21007"),
    )
    assert after("--node-rank", follows, 4) == (
        *("--node-rank", "1", "--dist-init-addr", "10.0.0.7:21007"),
    )
    differ = [
        pair for pair in zip(leads.argv, follows.argv, strict=True) if len({*pair}) > 1
    ]
    assert differ == [("0", "1")]
    assert after("--host", follows, 4) == ("--host", "127.0.0.1", "--port", "21005")


def test_ranks_of_vllm():
    leads, follows = launch("vllm", LEADER), launch("vllm", SECOND)
    assert after("--tensor-parallel-size", leads, 11) == (
        *("--tensor-parallel-size", "8", "--nnodes", "2", "--node-rank", "0"),
        *("--master-addr", "10.0.0.7", "--master-port", "21007"),
        "--gpu-memory-utilization",
    )
    assert after("--node-rank", follows, 7) == (
        *("--node-rank", "1", "--master-addr", "10.0.0.7", "--master-port", "21007"),
        "--headless",
    )


def test_an_old_vllm_is_refused_in_words():
    place = Place(21005, meeting=LEADER)
    model = ModelSpec("big", Kind.COMPLETION, "/m", "vllm", gpus=8, nodes=2)
    with pytest.raises(ConfigurationError, match=r"vLLM knows from 0\.12 on"):
        meeting_flags(model, place, (0, 11))


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_ranks_listen_on_their_hosts_address_for_each_other(engine: str):
    variables = launch(engine, SECOND).environment
    assert variables["NCCL_SOCKET_IFNAME"] == "=ib0"
    assert variables["GLOO_SOCKET_IFNAME"] == "ib0"
    assert variables["SGLANG_HOST_IP"] == variables["VLLM_HOST_IP"] == "10.0.0.8"
    own = launch(engine, SECOND, environment={"NCCL_SOCKET_IFNAME": "bond0"})
    assert own.environment["NCCL_SOCKET_IFNAME"] == "bond0"


def test_ranks_of_sglang_on_cpus():
    there = launch("sglang-cpu", SECOND)
    place = Place(21005, meeting=SECOND)
    model = ModelSpec("tiny", Kind.COMPLETION, "/m", "sglang-cpu", nodes=2)
    there = adapter("sglang-cpu").launch(
        replace(model, interpreter=PYTHON), place, HOME
    )
    assert after("--tp-size", there, 8) == (
        *("--tp-size", "2", "--nnodes", "2", "--node-rank", "1"),
        *("--dist-init-addr", "10.0.0.7:21007"),
    )
    assert there.environment["SGLANG_CPU_OMP_THREADS_BIND"] == "0|1"
    alone = adapter("sglang-cpu").launch(
        replace(model, interpreter=PYTHON, nodes=1), Place(21005), HOME
    )
    assert "--tp-size" not in alone.argv
    assert "SGLANG_CPU_OMP_THREADS_BIND" not in alone.environment


def test_a_command_is_told_its_rank():
    words = ("serve", "{node}", "{nodes}", "{meeting}")
    model = ModelSpec("own", Kind.COMPLETION, "", "command", command=words, nodes=2)
    place = Place(21005, meeting=SECOND)
    told = adapter("command").launch(model, place, HOME)
    assert told.argv == ("serve", "1", "2", "10.0.0.7:21007")
    alone = replace(model, nodes=1)
    told = adapter("command").launch(alone, Place(21005), HOME)
    assert told.argv == ("serve", "0", "1", "")
