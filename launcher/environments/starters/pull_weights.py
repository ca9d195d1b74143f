"""Fetch all files that an engine loads of a model into the hub's cache, whatever comes.

    ENGINE_PYTHON pull_weights.py MODEL_ID REVISION

Run it with the interpreter of an engine environment: it needs huggingface_hub, and
imports nothing of this project. Writes a JSON object a line: the size to fetch, what is
waited for, and the end. What can heal (too many requests, a hub that does not answer)
is waited out; what is there already is not fetched again.
"""

import glob
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

#: Seconds of the first wait where the hub does not say how long; then twice as many.
FIRST_WAIT_SECONDS = 5.0
#: Seconds that it waits at most at once.
LONGEST_WAIT_SECONDS = 300.0
#: Statuses of a hub that may be well again.
HEALING = frozenset({408, 429, 500, 502, 503, 504})
#: The marker beside a complete model's files.
MARKER = "modelserver-complete.json"
#: What no engine loads.
NEVER = ("original/*", "*.md", "*.onnx", "*.msgpack", "*.h5", "*.tflite", "*.ot")
#: Weights that no engine loads from a folder that has safetensors.
OTHER_WEIGHTS = frozenset({".bin", ".pt", ".pth", ".gguf"})


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


class Unfinished(OSError):
    """The hub's client came back without all files, as it does where nobody answers."""


def wait_seconds(error: BaseException) -> float | None:
    """How long the hub wants to be left alone, 0 for any time.

    None for an error that waiting does not heal.
    """
    # The hub's client wraps what its server said.
    caused = [e for e in (error, error.__cause__) if hasattr(e, "response")]
    response: Any = next((e.response for e in caused if e.response is not None), None)  # type: ignore[union-attr]
    if response is None:
        # Of this host's disk: it is full, or must not be written.
        return None if getattr(error, "errno", None) else 0.0
    if response.status_code not in HEALING:
        return None
    told = response.headers.get("Retry-After", "")
    limits = response.headers.get("RateLimit", "").rpartition("t=")[2]
    return max((float(word) for word in (told, limits) if word.isdigit()), default=0.0)


def faults() -> tuple[type[Exception], ...]:
    """What may heal. Older clients of the hub use requests: its errors are OSErrors."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    by_client = []
    for name in ("httpx2", "httpx"):  # What newer and older ones ask the hub with.
        with suppress(ImportError):
            by_client.append(importlib.import_module(name).HTTPError)
    return (HfHubHTTPError, LocalEntryNotFoundError, OSError, *by_client)


def patiently(work: Callable[[], Any]) -> Any:
    """The result of ``work``, tried again for as long as what it meets may heal."""
    wait = FIRST_WAIT_SECONDS
    while True:
        try:
            return work()
        except faults() as error:
            told = wait_seconds(error)
            if told is None:
                raise
            said = str(error.__cause__ or error).strip().splitlines()
            why = said[0] if said else type(error).__name__
        seconds = min(told or wait, LONGEST_WAIT_SECONDS)
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        tell(wait_seconds=seconds, why=why)
        time.sleep(seconds)


def fetch(
    model: str, revision: str | None, ignored: list[str], wanted: list[str]
) -> Path:
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(model, revision=revision, ignore_patterns=ignored))
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise Unfinished(f"{len(missing)} files are missing, first {missing[0]}")
    return folder


def find_doubles(names: Iterable[str]) -> list[str]:
    """Weights that no engine loads, as their folder has them as safetensors too."""
    paths = [PurePosixPath(name) for name in names]
    safe = {each.parent for each in paths if each.suffix == ".safetensors"}
    return [
        glob.escape(str(each))
        for each in paths
        if each.suffix in OTHER_WEIGHTS and each.parent in safe
    ]


def main(arguments: list[str]) -> int:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    model, revision = arguments
    found = patiently(
        lambda: HfApi().model_info(model, revision=revision, files_metadata=True)
    )
    sizes = {each.rfilename: each.size or 0 for each in found.siblings}
    ignored = [*NEVER, *find_doubles(sizes)]
    wanted = list(filter_repo_objects(sizes, ignore_patterns=ignored))
    tell(files=len(wanted), total_bytes=sum(sizes[name] for name in wanted))
    folder = patiently(lambda: fetch(model, revision, ignored, wanted))
    marker = folder.parent.parent / MARKER
    unfinished = marker.with_name(f"{MARKER}.{os.getpid()}")
    facts = {"commit": folder.name, "files": wanted}
    unfinished.write_text(json.dumps(facts))
    unfinished.replace(marker)
    tell(folder=str(folder))
    return 0


if __name__ == "__main__":
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "0"  # Whatever it is for others: it is to fetch.
    sys.exit(main(sys.argv[1:]))
