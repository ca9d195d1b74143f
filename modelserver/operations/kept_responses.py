"""How much disk the gateways' responses take, and which of them have to go."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelserver.inventory import gib
from modelserver.operations.check import Check

#: A response is kept for so many seconds after it was last used.
KEPT_SECONDS = 7 * 86_400.0
#: Responses that were last used within so many seconds go together, in seconds.
STEP_SECONDS = 10
#: Where there are too many, the oldest go until the rest is so much of the limit.
LEFT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class KeptResponses:
    """What a folder of responses takes."""

    #: By the time of the last use, in steps of STEP_SECONDS: bytes on the disk.
    sizes: Mapping[int, float]

    @property
    def size(self) -> float:
        """Bytes on the disk."""
        return sum(self.sizes.values())


def folder_of(files: Path) -> Path:
    """Where responses lie beside the files of batches: one folder for each key."""
    return files / "responses"


def read_entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Each file of the owners' folders. Raises OSError."""
    if not folder.exists():
        return
    with os.scandir(folder) as owners:
        for owner in owners:
            if not owner.is_dir(follow_symlinks=False):
                continue
            with os.scandir(owner) as files:
                for each in files:
                    try:
                        yield each.path, each.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # A gateway was quicker.


def read_kept(folder: Path) -> KeptResponses:
    """What a folder takes. Blocks. Raises OSError."""
    sizes: defaultdict[int, float] = defaultdict(float)
    for _, found in read_entries(folder):
        # A response's items are names of its file.
        size = max(found.st_size, found.st_blocks * 512) / found.st_nlink
        sizes[int(found.st_mtime) // STEP_SECONDS] += size
    return KeptResponses(sizes)


def find_cutoff(kept: KeptResponses, most_bytes: float, now: float) -> float:
    """What was last used before this time has to go.

    >>> kept = KeptResponses({0: 50.0, 1: 50.0, 2: 30.0})
    >>> [find_cutoff(kept, most, 30.0) - 30 + KEPT_SECONDS for most in (130, 1e9)]
    [0.0, 0.0]
    >>> [find_cutoff(kept, most, 30.0) for most in (100, 50, 10)]
    [10, 20, 30]
    """
    left, cutoff = kept.size, now - KEPT_SECONDS
    if left <= most_bytes:
        return cutoff
    for step in sorted(kept.sizes):
        if left <= LEFT_SHARE * most_bytes:
            break
        left -= kept.sizes[step]
        cutoff = max(cutoff, (step + 1) * STEP_SECONDS)
    return cutoff


def check_kept(folder: Path, most_bytes: float) -> Check:
    """Whether responses have to go before their time."""
    what = "kept responses"
    try:
        size = read_kept(folder).size
    except OSError as error:
        return Check(what, str(error), f"make {folder} readable for this user")
    fact = f"{gib(size)} of {gib(most_bytes)} in {folder}"
    if size < LEFT_SHARE * most_bytes:
        return Check(what, fact)
    days = KEPT_SECONDS / 86_400
    remedy = (
        f"the oldest go before their {days:.0f} days are over: where the disk has "
        "room, set gateway.responses_gib higher"
    )
    return Check(what, fact, remedy, is_note=True)
