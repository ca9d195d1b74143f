"""How engines are told of LoRA adapters."""

import json
from pathlib import Path

from modelserver.adapters import LoraAdapter
from tests.support.launches import on_gpus


def adapter_of(folder: Path, name: str, rank: int) -> LoraAdapter:
    (folder / name).mkdir()
    config = json.dumps({"r": rank})
    (folder / name / "adapter_config.json").write_text(config)
    return LoraAdapter(name, str(folder / name))


def test_sglang_is_told_of_adapters_by_name() -> None:
    adapters = (LoraAdapter("style", "org/style"), LoraAdapter("law", "/models/law"))
    argv = on_gpus("sglang", adapters=adapters).argv
    at = argv.index("--lora-paths")
    assert argv[at - 1 : at + 3] == (
        "--enable-lora",
        "--lora-paths",
        "style=org/style",
        "law=/models/law",
    )


def test_vllm_is_told_of_the_highest_rank_too(tmp_path: Path) -> None:
    adapters = (adapter_of(tmp_path, "a", 8), adapter_of(tmp_path, "b", 24))
    argv = on_gpus("vllm", adapters=adapters).argv
    at = argv.index("--enable-lora")
    assert argv[at : at + 8] == (
        *("--enable-lora", "--max-loras", "2", "--max-lora-rank", "32"),
        *("--lora-modules", f"qwen:a={tmp_path}/a", f"qwen:b={tmp_path}/b"),
    )


def test_models_without_adapters_are_started_as_before() -> None:
    for engine in ("sglang", "vllm"):
        assert not [word for word in on_gpus(engine).argv if "lora" in word]
