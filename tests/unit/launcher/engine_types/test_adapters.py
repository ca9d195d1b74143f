"""The exact commands by which engines are started."""

from pathlib import Path
from typing import Any

import pytest

from launcher.engine_types import LOOPBACK, Launch, Place, adapter
from launcher.environments import standins_path, starter
from modelserver.errors import ConfigurationError, EngineEnvironmentError
from modelserver.inventory import GIB
from modelserver.values import Kind, ModelSpec

HOME = Path("/home/ms")
PYTHON = "/env/bin/python"


def test_sglang_command() -> None:
    model = ModelSpec(
        name="qwen",
        kind=Kind.COMPLETION,
        path="Qwen/Qwen3-8B",
        engine="sglang",
        gpus=2,
        context_length=32768,
        max_running=48,
        extra_args=("--enable-torch-compile",),
        environment={"HF_TOKEN": "x"},
        interpreter=PYTHON,
    )
    place = Place(
        30001,
        (1, 3),
        uuids=("GPU-b", "GPU-d"),
        free_bytes=79 * GIB,
        total_bytes=80 * GIB,
    )
    launch = adapter("sglang").launch(model, place, HOME)
    assert launch.argv == (
        "/env/bin/python",
        str(starter("sglang")),
        "serve",
        "--model-path",
        "Qwen/Qwen3-8B",
        "--served-model-name",
        "qwen",
        "--host",
        "127.0.0.1",
        "--port",
        "30001",
        "--tp-size",
        "2",
        "--context-length",
        "32768",
        "--chunked-prefill-size",
        "4096",
        "--mem-fraction-static",
        "0.88",
        "--max-running-requests",
        "48",
        "--enable-metrics",
        "--enable-torch-compile",
    )
    assert launch.environment == {
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "",
        "SGLANG_REQUEST_STATE_WAIT_TIMEOUT": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-d",
        "HF_TOKEN": "x",
    }


def test_sglang_takes_a_group_of_gpus_that_others_use_unevenly() -> None:
    model = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", interpreter=PYTHON)
    place = Place(1, (0, 1), free_bytes=60 * GIB, promised_bytes=20 * GIB)
    environment = adapter("sglang").launch(model, place, HOME).environment
    assert environment["SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK"] == "false"


def test_sglang_embedding_command_without_a_context_length() -> None:
    model = ModelSpec(
        name="e5",
        kind=Kind.EMBEDDING,
        path="/models/e5",
        engine="sglang",
        gpus=1,
        interpreter=PYTHON,
    )
    place = Place(30002, (0,), free_bytes=60 * GIB, promised_bytes=20 * GIB)
    launch = adapter("sglang").launch(model, place, HOME)
    assert launch.argv[11:] == (
        "--tp-size",
        "1",
        "--mem-fraction-static",
        "0.293",
        "--max-running-requests",
        "64",
        "--enable-metrics",
        "--is-embedding",
    )


def sglang_cpu(kind: Kind, **values: str) -> Launch:
    model = ModelSpec(
        name="tiny",
        kind=kind,
        path="builtin:tiny-chat",
        engine="sglang-cpu",
        interpreter=PYTHON,
        environment=values,
        extra_args=("--random-seed", "1"),
    )
    return adapter("sglang-cpu").launch(model, Place(30003), HOME)


def test_sglang_cpu_command() -> None:
    launch = sglang_cpu(Kind.COMPLETION)
    assert launch.argv == (
        "/env/bin/python",
        str(starter("sglang")),
        "serve",
        "--model-path",
        "/home/ms/models/tiny-chat",
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        "30003",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--attention-backend",
        "torch_native",
        "--disable-overlap-schedule",
        "--max-total-tokens",
        "65536",
        "--mem-fraction-static",
        "0.3",
        "--max-running-requests",
        "64",
        "--context-length",
        "4096",
        "--chunked-prefill-size",
        "2048",
        "--enable-metrics",
        "--skip-server-warmup",
        "--sleep-on-idle",
        "--random-seed",
        "1",
    )
    assert launch.environment == {
        "SGLANG_REQUEST_STATE_WAIT_TIMEOUT": "1",
        "SGLANG_USE_CPU_ENGINE": "1",
        "OMP_NUM_THREADS": "1",
        "MODELSERVER_ENGINE_FORK": "1",
        "PYTHONPATH": str(standins_path()),
        "PYTHONDONTWRITEBYTECODE": "",
    }


def test_sglang_cpu_embedding_command_and_the_models_own_environment() -> None:
    launch = sglang_cpu(Kind.EMBEDDING, OMP_NUM_THREADS="4")
    assert launch.argv[-3:] == ("--is-embedding", "--random-seed", "1")
    assert launch.environment["OMP_NUM_THREADS"] == "4"


def test_encoder_on_a_cpu_gets_its_prompts_whole_and_stays_offline(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    model = ModelSpec(
        name="mini",
        kind=Kind.EMBEDDING,
        path=str(tmp_path),
        engine="sglang-cpu",
        interpreter=PYTHON,
    )
    launch = adapter("sglang-cpu").launch(model, Place(30004), HOME)
    assert "--context-length" not in launch.argv
    at = launch.argv.index("--disable-radix-cache")
    assert launch.argv[at + 1 : at + 3] == ("--chunked-prefill-size", "-1")
    assert launch.environment["HF_HUB_OFFLINE"] == "1"


def test_replicas_share_the_gpus_of_sglang() -> None:
    launch = on_gpus("sglang", data_parallel=2, torch_compile=True)
    at = launch.argv.index("--tp-size")
    assert launch.argv[at : at + 4] == ("--tp-size", "2", "--dp-size", "2")
    assert launch.argv[-1] == "--enable-torch-compile"


def on_gpus(engine: str, kind: Kind = Kind.COMPLETION, **values: Any) -> Launch:
    """The launch of an engine on four GPUs."""
    model = ModelSpec(
        name="qwen",
        kind=kind,
        path="Qwen/Qwen3-8B",
        engine=engine,
        gpus=4,
        interpreter=PYTHON,
        **values,
    )
    uuids = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
    place = Place(
        30005,
        (0, 1, 2, 3),
        uuids=uuids,
        free_bytes=80 * GIB,
        total_bytes=80 * GIB,
    )
    return adapter(engine).launch(model, place, HOME)


def test_vllm_command() -> None:
    launch = on_gpus(
        "vllm",
        context_length=32768,
        max_running=48,
        torch_compile=False,
        extra_args=("--quantization", "fp8"),
        environment={"HF_TOKEN": "x"},
    )
    assert launch.argv == (
        "/env/bin/vllm",
        "serve",
        "Qwen/Qwen3-8B",
        "--served-model-name",
        "qwen",
        "--host",
        "127.0.0.1",
        "--port",
        "30005",
        "--tensor-parallel-size",
        "4",
        "--gpu-memory-utilization",
        "0.92",
        "--max-num-seqs",
        "48",
        "--max-model-len",
        "32768",
        "--enable-chunked-prefill",
        "--max-num-batched-tokens",
        "4096",
        "--shutdown-timeout",
        "3",
        "--disable-uvicorn-access-log",
        "--enforce-eager",
        "--quantization",
        "fp8",
    )
    assert launch.environment == {
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "",
        "VLLM_NO_USAGE_STATS": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c,GPU-d",
        "HF_TOKEN": "x",
    }


def test_replicas_share_the_gpus_and_the_requests_of_vllm() -> None:
    launch = on_gpus("vllm", data_parallel=2, max_running=63, torch_compile=True)
    assert launch.argv[9:16] == (
        "--tensor-parallel-size",
        "2",
        "--data-parallel-size",
        "2",
        "--gpu-memory-utilization",
        "0.92",
        "--max-num-seqs",
    )
    assert launch.argv[16] == "32"
    assert "--enforce-eager" not in launch.argv


def test_vllm_embedding_command_reads_prompts_whole() -> None:
    launch = on_gpus("vllm", Kind.EMBEDDING, context_length=8192)
    at = launch.argv.index("--runner")
    assert launch.argv[at - 2 : at + 2] == (
        "--max-model-len",
        "8192",
        "--runner",
        "pooling",
    )
    assert "--enable-chunked-prefill" not in launch.argv


def test_vllm_cpu_command() -> None:
    model = ModelSpec(
        name="tiny",
        kind=Kind.COMPLETION,
        path="builtin:tiny-chat",
        engine="vllm-cpu",
        interpreter=PYTHON,
        extra_args=("--seed", "1"),
    )
    launch = adapter("vllm-cpu").launch(model, Place(30006), HOME)
    assert launch.argv == (
        "/env/bin/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        "/home/ms/models/tiny-chat",
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        "30006",
        "--dtype",
        "float32",
        "--max-num-seqs",
        "64",
        "--max-model-len",
        "4096",
        "--enable-chunked-prefill",
        "--max-num-batched-tokens",
        "2048",
        "--shutdown-timeout",
        "3",
        "--disable-uvicorn-access-log",
        "--enforce-eager",
        "--seed",
        "1",
    )
    assert launch.environment == {
        "PYTHONDONTWRITEBYTECODE": "",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "PYTHONPATH": str(standins_path()),
    }


@pytest.mark.parametrize(
    ("engine", "variable"),
    [
        ("sglang", "MODELSERVER_ENGINE_KEY"),
        ("sglang-cpu", "MODELSERVER_ENGINE_KEY"),
        ("vllm", "VLLM_API_KEY"),
        ("vllm-cpu", "VLLM_API_KEY"),
        ("command", "THEIR_KEY"),
        ("external", ""),
        ("absent", ""),
    ],
)
def test_each_engine_gets_its_key_by_a_variable(engine: str, variable: str) -> None:
    model = ModelSpec(
        name="m",
        kind=Kind.COMPLETION,
        path="/m",
        engine=engine,
        api_key_env="THEIR_KEY",
    )
    assert adapter(engine).key_variable(model) == variable


def test_a_model_may_ask_for_a_version_of_its_engine(tmp_path: Path) -> None:
    model = ModelSpec(
        name="m",
        kind=Kind.COMPLETION,
        path="/m",
        engine="sglang",
        engine_version="0.5.22",
    )
    with pytest.raises(EngineEnvironmentError, match=r"install sglang==0\.5\.22"):
        adapter("sglang").prepare(model, tmp_path)


@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu", "vllm", "vllm-cpu"])
def test_missing_environment_is_named_with_its_remedy(
    engine: str, tmp_path: Path
) -> None:
    model = ModelSpec(name="m", kind=Kind.COMPLETION, path="/m", engine=engine)
    with pytest.raises(EngineEnvironmentError, match=f"engines install {engine}"):
        adapter(engine).prepare(model, tmp_path)


def test_unknown_builtin_model_is_refused() -> None:
    model = ModelSpec(
        name="m",
        kind=Kind.COMPLETION,
        path="builtin:huge",
        engine="sglang-cpu",
        interpreter=PYTHON,
    )
    with pytest.raises(ConfigurationError, match="builtin:tiny-chat"):
        adapter("sglang-cpu").launch(model, Place(1), HOME)


def command(*words: str, gpus: tuple[int, ...] = ()) -> Launch:
    model = ModelSpec(
        name="org/m",
        kind=Kind.COMPLETION,
        path="/models/m",
        engine="command",
        command=words,
        environment={"A": "b"},
    )
    return adapter("command").launch(model, Place(8001, gpus), HOME)


def test_command_gets_its_placeowners_filled() -> None:
    launch = command("srv", "{path}", "--at={host}:{port}", "--name", "{model}", "{{}}")
    assert launch.argv == (
        "srv",
        "/models/m",
        f"--at={LOOPBACK}:8001",
        "--name",
        "org/m",
        "{}",
    )
    assert launch.environment == {"A": "b"}


def test_command_with_gpus_sees_only_those() -> None:
    launch = command("srv", gpus=(2, 5))
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "2,5"


@pytest.mark.parametrize("word", ["{prot}", "{}", "{0}", "{port", "port}", "{port.x}"])
def test_bad_placeholder_is_named_with_those_that_there_are(word: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        command("srv", word)
    text = str(caught.value)
    assert word in text
    assert "{port}, {host}, {model}, {path}" in text
    assert 'model "org/m"' in text


def test_external_engine_has_no_command() -> None:
    model = ModelSpec(name="m", kind=Kind.COMPLETION, path="", engine="external")
    external = adapter("external")
    external.prepare(model, HOME)
    assert external.launch(model, Place(0), HOME) == Launch(())
    assert not external.starts_process


def test_model_that_the_fleet_file_lacks_says_so() -> None:
    model = ModelSpec(name="m", kind=Kind.COMPLETION, path="", engine="absent")
    with pytest.raises(ConfigurationError, match="modelserver apply"):
        adapter("absent").prepare(model, HOME)
    assert adapter("absent").launch(model, Place(0), HOME).argv == ()


def test_unknown_engine_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="sglang-cpu"):
        adapter("vlm")
