"""What a model says of itself in its ``config.json`` and the files beside it."""

import json
import re
from pathlib import Path
from typing import Any

from launcher.startup_log.weights import Weights

#: Types of models that see a whole text at once: BERT, XLM-R and their relatives (bge,
#: e5, gte).
ENCODERS = re.compile(r"bert|electra|mpnet|ernie|^(new|gte|deberta.*)$", re.IGNORECASE)
#: How the names of a pooling's switches begin and end: ``pooling_mode_mean_tokens``.
_POOLING_SWITCH = re.compile(r"^pooling_mode_(.+?)(?:_tokens?)?$")
#: The poolings that newer files call by other names.
_POOLING_NAMES = {"cls_token": "cls", "last_token": "lasttoken", "last": "lasttoken"}


def vocabulary(files: Weights) -> int:
    """How many token ids a model knows; 0 where its files do not tell.

    Models with several parts, such as those that see, say it of their text part.
    """
    config = _config(files)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        size = part.get("vocab_size")
        if isinstance(size, int) and size > 0:
            return size
    return 0


def is_known(files: Weights) -> bool:
    """Whether its ``config.json`` is on this host."""
    return bool(_config(files))


def is_encoder(files: Weights) -> bool:
    """Whether its files say that it sees a whole text at once."""
    return bool(ENCODERS.search(str(_config(files).get("model_type", ""))))


def is_bidirectional(files: Weights) -> bool:
    """Whether it is a decoder that was made an encoder, as EmbeddingGemma is."""
    return _config(files).get("use_bidirectional_attention") is True


def looks_ahead(files: Weights) -> bool:
    """Whether it is a decoder whose tokens see those after them, as gte-Qwen2."""
    return _config(files).get("is_causal") is False


def pooling(files: Weights) -> str:
    """How it makes one vector of a text's tokens, such as "cls", "mean", "lasttoken".

    "" where no file of sentence-transformers' says so.
    """
    found = _module(files, "Pooling")
    folder = "1_Pooling" if found is None else str(found.get("path", ""))
    config = _read(files, f"{folder}/config.json")
    mode = config.get("pooling_mode")
    if isinstance(mode, str):
        return _POOLING_NAMES.get(mode, mode)
    switches = (_POOLING_SWITCH.match(key) for key, on in config.items() if on is True)
    return " and ".join(match[1] for match in switches if match)


def has_dense_layer(files: Weights) -> bool:
    """Whether its vectors go through one more layer after their pooling."""
    return _module(files, "Dense") is not None


def has_code_elsewhere(files: Weights) -> bool:
    """Whether its code is in another model of the hub: ``org/other--module.Class``."""
    found = _config(files).get("auto_map")
    named = found.values() if isinstance(found, dict) else ()
    return any("--" in str(each) for each in named)


def knows_modules(files: Weights) -> bool:
    """Whether it is known which parts it has for sentence-transformers."""
    name = "modules.json"
    here = any((folder / name).is_file() for folder in files.folders())
    return here or (is_known(files) and files.lacks(name))


def _config(files: Weights) -> dict[str, Any]:
    return _read(files, "config.json")


def _module(files: Weights, kind: str) -> dict[str, Any] | None:
    for folder in files.folders():
        modules = _load(folder / "modules.json")
        for module in modules if isinstance(modules, list) else ():
            if isinstance(module, dict) and (
                str(module.get("type", "")).rpartition(".")[2] == kind
            ):
                return module
    return None


def _read(files: Weights, name: str) -> dict[str, Any]:
    for folder in files.folders():
        found = _load(folder / name)
        if isinstance(found, dict):
            return found
    return {}


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
