"""The exact commands by which SGLang is started."""

from pathlib import Path

from launcher.engine_types import Launch, Place, adapter
from launcher.engine_types.base import MEET_ON_LOOPBACK
from launcher.environments import standins_path, starter
from modelserver.inventory import GIB
from modelserver.values import Kind, ModelSpec
from tests.support.launches import HOME, PYTHON, on_gpus


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
        "--mem-fraction-static",
        "0.88",
        "--max-running-requests",
        "48",
        "--enable-metrics",
        "--log-level-http",
        "warning",
        "--enable-torch-compile",
    )
    assert launch.environment == {
        **MEET_ON_LOOPBACK,
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "",
        "SGLANG_REQUEST_STATE_WAIT_TIMEOUT": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1,3",
        "HF_TOKEN": "x",
    }


def test_sglang_takes_a_group_of_gpus_that_others_use_unevenly() -> None:
    model = ModelSpec("m", Kind.COMPLETION, "/m", "sglang", interpreter=PYTHON)
    place = Place(1, (0, 1), free_bytes=60 * GIB, promised_bytes=20 * GIB)
    environment = adapter("sglang").launch(model, place, HOME).environment
    assert environment["SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK"] == "false"


def test_sglang_embedding_command_of_a_model_that_nobody_knows_yet() -> None:
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
        "--disable-radix-cache",
        "--chunked-prefill-size",
        "-1",
        "--mem-fraction-static",
        "0.293",
        "--max-running-requests",
        "64",
        "--enable-metrics",
        "--log-level-http",
        "warning",
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
        "--log-level-http",
        "warning",
        "--skip-server-warmup",
        "--sleep-on-idle",
        "--random-seed",
        "1",
    )
    assert launch.environment == {
        **MEET_ON_LOOPBACK,
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
