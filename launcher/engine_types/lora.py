"""How engines are told of a model's LoRA adapters."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from launcher.startup_log.weights import weights_of
from modelserver.adapters import engine_name
from modelserver.values import ModelSpec

#: Adapters whose requests an engine computes together at most; the others take turns.
MOST_AT_ONCE = 8
#: The ranks that vLLM can be told.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def sglang_adapters(model: ModelSpec) -> list[str]:
    """The flags of SGLang, which finds ranks and layers by itself."""
    if not model.adapters:
        return []
    paths = [f"{each.name}={_path(each.path)}" for each in model.adapters]
    return ["--enable-lora", "--lora-paths", *paths]


def vllm_adapters(model: ModelSpec) -> list[str]:
    """The flags of vLLM, which wants to know the highest rank."""
    if not model.adapters:
        return []
    modules = [
        f"{engine_name(model.name, each.name)}={_path(each.path)}"
        for each in model.adapters
    ]
    at_once = str(min(len(modules), MOST_AT_ONCE))
    argv = ["--enable-lora", "--max-loras", at_once]
    ranks = [_rank(each.path, model.environment) for each in model.adapters]
    if rank := next((each for each in VLLM_RANKS if each >= max(ranks)), 0):
        argv += ["--max-lora-rank", str(rank)]
    return [*argv, "--lora-modules", *modules]


def _path(path: str) -> str:
    folder = Path(os.path.expanduser(path))
    return str(folder) if folder.is_dir() else path


def _rank(path: str, environment: Mapping[str, str]) -> int:
    """An adapter's rank; 16, what engines take for it, where it is not here yet."""
    for folder in weights_of(path, environment).folders():
        try:
            return int(json.loads((folder / "adapter_config.json").read_text())["r"])
        except (OSError, ValueError, KeyError):
            continue
    return 16
