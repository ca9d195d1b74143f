"""Arguments of engines that would take them out of the launcher's hands."""

import pytest

from modelserver.fleet.arguments import (
    find_argument_problems,
    find_variable_problems,
)


def refused(engine: str, *words: str) -> list[str]:
    return list(find_argument_problems(engine, words))


@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu", "vllm", "vllm-cpu"])
@pytest.mark.parametrize(
    "words",
    [
        ("--port", "8000"),
        ("--port=8000",),
        ("--por=8000",),
        ("--host", "0.0.0.0"),
        ("--ssl-keyfile", "/k"),
        ("--ssl_certfile=/c",),
        ("--served-model-name", "other"),
        ("--served_model_name=other",),
        ("--nnodes", "2"),
        ("--nno=2",),
        ("--uds", "/s"),
        ("--api-key", "x"),
        ("--config", "engine.yaml"),
        ("--conf=engine.yaml",),
        ("--model", "/another"),
        ("--mod=/another",),
    ],
)
def test_what_breaks_supervision_is_refused_by_name(
    engine: str, words: tuple[str, ...]
):
    (problem,) = refused(engine, *words)
    assert problem.startswith(f"extra_args must not hold {words[0].split('=')[0]}: ")


def test_each_engine_has_its_own():
    assert refused("sglang", "--tokenizer-worker-num", "2", "--admin-api-key=x")
    assert not refused("vllm", "--tokenizer", "/t")
    assert refused("vllm", "--headless")
    assert refused("vllm", "-n2")
    assert refused("vllm", "--distributed-executor-backend=ray")
    assert refused("sglang", "--model-path=/another")
    assert refused("sglang", "--base-gpu-id", "3")
    assert refused("sglang", "--use-ray")
    for words in (("-dpb", "ray"), ("-dpa=10.0.0.1",), ("-dpn1",), ("-dph",)):
        assert refused("vllm", *words)
    assert refused("vllm", "--data-parallel-rank", "1", "--grpc")
    assert not refused("vllm", "-dp", "2", "-dpl", "1", "-tp=2", "--data-parallel-size")
    assert not refused("vllm", "--model-impl", "transformers", "--config-format", "hf")
    assert not refused("command", "--port", "8000")


@pytest.mark.parametrize(
    "words",
    [
        ("--tensor-parallel-size", "2", "--pipeline-parallel-size=2"),
        ("--quantization", "fp8", "--", "-p"),
        ("--attention-backend", "--triton"),
        ("--json-model-override-args", '{"--port": 1}'),
        ("--hostess", "--port-range"),
    ],
)
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_others_are_taken(engine: str, words: tuple[str, ...]):
    assert refused(engine, *words) == []


def test_what_gpus_an_engine_sees_is_the_launchers_to_say():
    assert not list(find_variable_problems(["HF_TOKEN", "NVIDIA_TF32_OVERRIDE"]))
    problems = find_variable_problems(
        ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"]
    )
    assert len(list(problems)) == 2
