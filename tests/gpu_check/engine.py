"""A model without weights of its own, for an engine on a GPU."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher import environments
from modelserver.settings import load
from tests.support.fleets import CLI

ENGINES = ("sglang", "vllm")
#: Of attention heads that every kernel knows; 0.3 GB of weights in half precision.
CONFIG = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_hidden_layers": 8,
    "head_dim": 128,
    "layer_types": ["full_attention"] * 8,
    "dtype": "bfloat16",
}


def made_up_model(engine: str, extra: Sequence[str], folder: Path) -> dict[str, Any]:
    """Keys of the fleet file for a model with random weights; its files in ``folder``.

    The engine ("sglang", "vllm==0.32.0") is installed where it is not there.
    """
    home = load().home
    if not environments.is_installed(engine, home):
        subprocess.run([*CLI, "engines", "install", engine], check=True)
    python = environments.interpreter(engine, home)
    environments.ensure_tiny_models(python, home / "models")
    return {
        "engine": engine.partition("==")[0],
        "interpreter": str(python),
        "path": str(_write_model(home / "models" / "tiny-chat", folder)),
        "command": [],
        "extra_args": ["--load-format", "dummy", *extra],
        "context_length": 4096,
    }


def _write_model(tiny: Path, folder: Path) -> Path:
    """A model's folder without weights, which the engine makes up."""
    folder.mkdir()
    for file in tiny.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | CONFIG))
    return folder
