"""The exact commands by which vLLM is started."""

from launcher.engine_types import Place, adapter
from launcher.engine_types.base import MEET_ON_LOOPBACK
from launcher.environments import standins_path
from modelserver.values import Kind, ModelSpec
from tests.support.launches import HOME, PYTHON, on_gpus


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
        "--shutdown-timeout",
        "3",
        "--disable-uvicorn-access-log",
        "--enforce-eager",
        "--quantization",
        "fp8",
    )
    assert launch.environment == {
        **MEET_ON_LOOPBACK,
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
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


def test_vllm_computes_no_fewer_tokens_at_once_than_it_has_requests() -> None:
    argv = on_gpus("vllm", max_running=4096).argv
    assert argv[argv.index("--max-num-batched-tokens") + 1] == "4096"


def test_vllm_embedding_command() -> None:
    launch = on_gpus("vllm", Kind.EMBEDDING, context_length=8192)
    at = launch.argv.index("--runner")
    assert launch.argv[at - 2 : at + 2] == (
        "--max-model-len",
        "8192",
        "--runner",
        "pooling",
    )


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
        "--shutdown-timeout",
        "3",
        "--disable-uvicorn-access-log",
        "--enforce-eager",
        "--seed",
        "1",
    )
    assert launch.environment == {
        **MEET_ON_LOOPBACK,
        "PYTHONDONTWRITEBYTECODE": "",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "PYTHONPATH": str(standins_path()),
    }
