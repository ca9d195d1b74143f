"""What a model says of itself in its ``config.json``."""

import json
from typing import Any

from launcher.startup_log.weights import Weights


def vocabulary(files: Weights) -> int:
    """How many token ids a model knows; 0 where its files do not tell.

    Models with several parts, such as those that see, say it of their text part.
    """
    config = _read(files)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        size = part.get("vocab_size")
        if isinstance(size, int) and size > 0:
            return size
    return 0


def _read(files: Weights) -> dict[str, Any]:
    for folder in files.folders():
        try:
            config = json.loads((folder / "config.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(config, dict):
            return config
    return {}
