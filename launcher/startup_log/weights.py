"""How large a model's weights are on this host's disk, and how far a download is."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.environments.paths import hub_folder

#: The suffix of safetensors, which engines load first.
SAFE = frozenset({".safetensors"})
#: The file that ``modelserver weights pull`` writes last, beside a model's snapshots.
COMPLETE = "modelserver-complete.json"
#: The suffixes of other files with weights.
OTHERS = frozenset({".bin", ".gguf", ".pt", ".pth"})


@dataclass(frozen=True, slots=True)
class Weights:
    """One model's files: a folder, or a Hugging Face id in the cache of its engine."""

    path: str
    #: The engine's environment, which may move the cache.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The revision that its engine loads from the hub.
    revision: str = "main"

    @property
    def place(self) -> Path:
        """The folder that has them, or is to have them."""
        return self._folder or self.cache_folder

    def size(self) -> int:
        """Bytes of the weights; 0 where nothing is there yet."""
        folders = self.folders()
        # Where a folder has both, engines load the safetensors.
        sizes = (_weigh(each, SAFE) or _weigh(each, OTHERS) for each in folders)
        return max(sizes, default=0)

    def folders(self) -> list[Path]:
        """Where the model's files are, the newest first; none before a download."""
        return [self._folder] if self._folder else self._snapshots()

    def downloaded(self) -> int:
        """Bytes that the cache has of this model, unfinished files included."""
        if not self.path or self._folder:
            return 0
        return _weigh(self.cache_folder / "blobs", None)

    def lacks(self, name: str) -> bool:
        """Whether the hub has said that the model has no file of this name."""
        known = self.revision if self.revision != "main" else "*"
        commit = self._commit(self.revision) or known
        return any((self.cache_folder / ".no_exist").glob(f"{commit}/{name}"))

    def is_complete(self, revision: str = "main") -> bool:
        """Whether ``weights pull`` has fetched all that an engine loads of it."""
        try:
            facts = json.loads((self.cache_folder / COMPLETE).read_text())
            commit, files = str(facts["commit"]), facts["files"]
            current = self._commit(revision) or revision
        except (OSError, ValueError, KeyError):
            return False
        snapshot = self.cache_folder / "snapshots" / commit
        here = all((snapshot / name).is_file() for name in files)
        return here and commit == current

    @property
    def _folder(self) -> Path | None:
        folder = Path(os.path.expanduser(self.path))
        return folder if self.path and folder.is_dir() else None

    def _commit(self, revision: str) -> str:
        """The commit that a revision stood for when it was downloaded, "" for none."""
        try:
            return (self.cache_folder / "refs" / revision).read_text().strip()
        except OSError:
            return ""

    def _snapshots(self) -> list[Path]:
        commit = self._commit(self.revision)
        own = self.cache_folder / "snapshots" / (commit or self.revision)
        if own.is_dir():
            return [own]
        if commit or self.revision != "main":
            return []  # What its engine loads is not here.
        try:
            found = list((self.cache_folder / "snapshots").iterdir())
            return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
        except OSError:
            return []

    @property
    def cache_folder(self) -> Path:
        """Where the hub's libraries keep this model."""
        hub = hub_folder(self.environment)
        return hub / f"models--{self.path.replace('/', '--')}"


def weights_of(
    path: str, environment: Mapping[str, str], revision: str = "main"
) -> Weights:
    """The weights of a model whose engine gets ``environment`` on top of ours."""
    return Weights(path, {**os.environ, **environment}, revision)


def _weigh(folder: Path, suffixes: frozenset[str] | None) -> int:
    return sum(_sizes(folder, suffixes))


def _sizes(folder: Path, suffixes: frozenset[str] | None) -> Iterator[int]:
    try:
        files = list(os.scandir(folder))
    except OSError:
        return
    for file in files:
        if suffixes is not None and Path(file.name).suffix not in suffixes:
            continue
        try:
            yield file.stat().st_size
        except OSError:
            continue  # A finished download was renamed meanwhile.
