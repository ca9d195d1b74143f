"""What holds for every type of engine."""

from pathlib import Path

import pytest

from launcher.engine_types import Place, adapter
from modelserver.errors import ConfigurationError, EngineEnvironmentError
from modelserver.values import Kind, ModelSpec
from tests.support.launches import HOME, PYTHON


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


@pytest.mark.parametrize("engine", ["sglang-cpu", "vllm-cpu"])
def test_another_version_of_what_is_known_at_one_says_what_is_to_go(
    engine: str, tmp_path: Path
) -> None:
    model = ModelSpec(
        name="m", kind=Kind.COMPLETION, path="/m", engine=engine, engine_version="0.9"
    )
    with pytest.raises(EngineEnvironmentError, match="; leave out engine_version"):
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


def test_unknown_engine_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="sglang-cpu"):
        adapter("vlm")
