"""Starts that load the same files take turns, where their model says so."""

from pathlib import Path


class LoadTurns:
    """Which engine of this host loads which files now."""

    def __init__(self) -> None:
        self._loading: dict[str, Path] = {}

    def take(self, engine: str, files: Path) -> str:
        """Begin to load; the engine that loads these files now, "" where none does.

        ``files`` is a resolved path.
        """
        for other, loaded in self._loading.items():
            if loaded == files and other != engine:
                return other
        self._loading[engine] = files
        return ""

    def end(self, engine: str) -> None:
        """Have loaded them, or given up."""
        self._loading.pop(engine, None)
