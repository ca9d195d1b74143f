"""The exact commands by which engines are started."""

from pathlib import Path

import pytest

from launcher.engines import LOOPBACK, Launch, Place, adapter
from launcher.environments import standins_path
from modelserver.errors import ConfigurationError, EngineEnvironmentError
from modelserver.model import Kind, ModelSpec

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
    launch = adapter("sglang").launch(model, Place(30001, (1, 3), 0.99), HOME)
    assert launch.argv == (
        "/env/bin/sglang",
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
        "0.87",
        "--max-running-requests",
        "48",
        "--enable-metrics",
        "--enable-torch-compile",
    )
    assert launch.environment == {
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1,3",
        "HF_TOKEN": "x",
    }


def test_sglang_embedding_command_without_a_context_length() -> None:
    model = ModelSpec(
        name="e5",
        kind=Kind.EMBEDDING,
        path="/models/e5",
        engine="sglang",
        gpus=1,
        interpreter=PYTHON,
    )
    launch = adapter("sglang").launch(model, Place(30002, (0,), 0.9), HOME)
    assert launch.argv[10:] == (
        "--tp-size",
        "1",
        "--mem-fraction-static",
        "0.78",
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
        "/env/bin/sglang",
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


@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu"])
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


def test_command_gets_its_placeholders_filled() -> None:
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
    with pytest.raises(ConfigurationError, match="same fleet file"):
        adapter("absent").prepare(model, HOME)
    assert adapter("absent").launch(model, Place(0), HOME).argv == ()


def test_unknown_engine_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="sglang-cpu"):
        adapter("vlm")
