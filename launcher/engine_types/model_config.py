"""What a model says of itself in its ``config.json`` and the files beside it."""

import json
import re
from pathlib import Path
from typing import Any

from launcher.startup_log.weights import Weights

#: Types of models that see a whole text at once: BERT, XLM-R and their relatives (bge,
#: e5, gte).
ENCODERS = re.compile(r"bert|electra|mpnet|ernie|^(new|gte|deberta.*)$", re.IGNORECASE)
#: The parts of sentence-transformers' models that engines know, or that do nothing to a
#: vector once a model is trained.
_KNOWN_MODULES = frozenset(
    {"Transformer", "CLIPModel", "Pooling", "Dense", "Normalize", "Dropout"}
)
#: How the names of a pooling's switches begin and end: ``pooling_mode_mean_tokens``.
_POOLING_SWITCH = re.compile(r"^pooling_mode_(.+?)(?:_tokens?)?$")
#: The poolings that newer files call by other names.
_POOLING_NAMES = {"cls_token": "cls", "last_token": "lasttoken", "last": "lasttoken"}


def vocabulary(files: Weights) -> int:
    """How many token ids a model knows; 0 where its files do not tell.

    Models with several parts, such as those that see, say it of their text part.
    """
    for part in _parts(files):
        size = part.get("vocab_size")
        if isinstance(size, int) and size > 0:
            return size
    return 0


def is_known(files: Weights) -> bool:
    """Whether its ``config.json`` is on this host."""
    return bool(_config(files))


def is_encoder(files: Weights) -> bool:
    """Whether its files say that it sees a whole text at once."""
    return bool(ENCODERS.search(model_type(files)))


def architecture(files: Weights) -> str:
    """The class that is its code, such as "BertModel"; "" where its files do not tell.

    ``model_type`` says less: a RobertaModel and a ModernBertModel are encoders, too.
    """
    named = _config(files).get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def model_type(files: Weights) -> str:
    """The family of its code, such as "bert"; "" where its files do not tell."""
    return str(_config(files).get("model_type") or "")


def looks_ahead(files: Weights) -> bool:
    """Whether it is a decoder whose tokens see those after them, as gte-Qwen2."""
    return any(
        part.get("is_causal") is False
        or part.get("use_bidirectional_attention") is True
        for part in _parts(files)
    )


def pooling(files: Weights) -> str:
    """How it makes one vector of a text's tokens, such as "cls", "mean", "lasttoken".

    "" where no file of sentence-transformers' says so.
    """
    found = _module(files, "Pooling")
    folder = "1_Pooling" if found is None else str(found.get("path", ""))
    config = _read(files, f"{folder}/config.json")
    if mode := config.get("pooling_mode"):
        names = [str(n).lower() for n in (mode if isinstance(mode, list) else [mode])]
        return " and ".join(_POOLING_NAMES.get(name, name) for name in names)
    switches = (_POOLING_SWITCH.match(key) for key, on in config.items() if on is True)
    return " and ".join(match[1] for match in switches if match)


def has_dense_layer(files: Weights) -> bool:
    """Whether its vectors go through one more layer after their pooling."""
    return _module(files, "Dense") is not None


def unknown_module(files: Weights) -> str:
    """A part of sentence-transformers' own that no engine computes, "" for none."""
    for module in _modules(files):
        package, _, kind = str(module.get("type", "")).rpartition(".")
        if package.startswith("sentence_transformers.") and kind not in _KNOWN_MODULES:
            return kind
    return ""


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


def _parts(files: Weights) -> tuple[dict[str, Any], ...]:
    """What it says of itself, and of its text part."""
    config = _config(files)
    text = config.get("text_config")
    return (config, text) if isinstance(text, dict) else (config,)


def _module(files: Weights, kind: str) -> dict[str, Any] | None:
    for module in _modules(files):
        if str(module.get("type", "")).rpartition(".")[2] == kind:
            return module
    return None


def _modules(files: Weights) -> list[dict[str, Any]]:
    """Its parts for sentence-transformers, in their order."""
    for folder in files.folders():
        found = _load(folder / "modules.json")
        if isinstance(found, list):
            return [module for module in found if isinstance(module, dict)]
    return []


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
