"""Engines that need not ask the hub."""

import json
from pathlib import Path

import pytest

from launcher.engine_types.hub import offline_once_complete
from launcher.startup_log.weights import COMPLETE, Weights
from modelserver.values import Kind, ModelSpec

CONFIG = {"model_type": "qwen3"}


def pulled(cache: Path, config: object = None) -> Weights:
    """A model that ``weights pull`` has fetched."""
    files = Weights("org/m", {"HF_HUB_CACHE": str(cache)})
    snapshot = files.cache_folder / "snapshots" / "c1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(config or CONFIG))
    (files.cache_folder / "refs").mkdir()
    (files.cache_folder / "refs/main").write_text("c1")
    facts = {"commit": "c1", "files": ["config.json"]}
    (files.cache_folder / COMPLETE).write_text(json.dumps(facts))
    return files


def is_offline(files: Weights, *extra_args: str, image: str = "") -> bool:
    model = ModelSpec(
        "m", Kind.COMPLETION, files.path, "vllm", extra_args=extra_args, image=image
    )
    return bool(offline_once_complete(model, files))


def test_a_complete_model_needs_no_hub(tmp_path: Path) -> None:
    files = pulled(tmp_path)
    assert is_offline(files)
    assert is_offline(files, "--revision", "c1", "--quantization", "fp8")
    assert not is_offline(files, "--revision", "v2")
    assert not is_offline(files, "--speculative-model=org/draft")
    assert not is_offline(files, "--speculative-config", '{"model": "org/draft"}')
    assert not is_offline(files, "--download_dir=/data")
    assert not is_offline(files, "--tokenizer-revision", "v2")
    assert not is_offline(files, image="vllm/vllm-openai:v0.32.0")


@pytest.mark.parametrize("gone", ["snapshots/c1/config.json", COMPLETE])
def test_a_model_that_lost_a_file_is_not_complete(tmp_path: Path, gone: str) -> None:
    files = pulled(tmp_path)
    (files.cache_folder / gone).unlink()
    assert not is_offline(files)


def test_a_model_that_was_fetched_anew_since_is_not_complete(tmp_path: Path) -> None:
    files = pulled(tmp_path)
    (files.cache_folder / "refs/main").write_text("c2")
    assert not is_offline(files)


def test_code_of_another_model_needs_the_hub(tmp_path: Path) -> None:
    elsewhere = {**CONFIG, "auto_map": {"AutoModel": "org/code--modeling.Model"}}
    assert not is_offline(pulled(tmp_path, elsewhere))
