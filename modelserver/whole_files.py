"""Writes files that others read meanwhile."""

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write a file in one step, so that nobody sees it half written. Raises OSError."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, file)
