"""What a starting engine is doing, read from its log, and when a start takes too long.

The lines are those of SGLang 0.5 and vLLM 0.33; one that is not known changes nothing.
"""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from launcher.startup_log.weights import Weights
from modelserver.inventory import GIB

#: Seconds that a start may take without its weights, where the fleet file has no limit.
BASE_START_SECONDS = 300.0
#: Seconds more for each GiB of weights: a slow network disk needs these.
SECONDS_PER_GIB = 10.0
#: Seconds without a new step after which a start beyond its limit is given up.
NOTHING_NEW_SECONDS = 120.0
#: Bytes of a log that are read at once at most.
READ_LIMIT_BYTES = 65_536
#: What ends a line; a progress bar ends each of its states with a carriage return.
BREAKS = re.compile(r"[\r\n]+")

#: How steps begin in which weights are read.
LOADING = ("loading", "downloading")
#: The rest of a tqdm bar after its title, such as " 43% Completed | 3/7 [".
_BAR = r"[^%]*?:\s+(?P<percent>\d+)%.*?\|\s*(?P<done>[\d.]+\w?)/(?P<all>[\d.]+\w?) \["
#: How far a step is, by its bar.
_COUNTED = " {done}/{all}"
_GRAPHS = "capturing CUDA graphs"
#: Patterns of lines, and what an engine that writes them is doing.
_STEPS = tuple(
    (re.compile(pattern), doing)
    for pattern, doing in (
        (
            r"(?:Multi-thread loading|Loading)(?: \w+ checkpoint)? shards" + _BAR,
            "loading weights {percent} % ({done}/{all} shards)",
        ),
        (
            r"Loading safetensors using [\w -]+" + _BAR,
            "loading weights {percent} % ({done}/{all} shards)",
        ),
        (r"Fetching \d+ files" + _BAR, "downloading the model {percent} %"),
        (r"Downloading[^:]*" + _BAR, "downloading the model {percent} %"),
        (r"\S+\.(?:safetensors|bin|gguf)" + _BAR, "downloading the model {percent} %"),
        (r"Capturing (?:batches|prefill|CUDA graph)" + _BAR, _GRAPHS + _COUNTED),
        (r"Capturing num tokens" + _BAR, _GRAPHS + _COUNTED),
        (r"Compiling num tokens" + _BAR, "compiling" + _COUNTED),
        (r"DeepGEMM (?:warmup|JIT)[^:]*" + _BAR, "compiling" + _COUNTED),
        (r"\[AutoTuner\]: Tuning" + _BAR, "tuning kernels" + _COUNTED),
        (r"Capture .*graph begin|Capturing .*CUDA graph", _GRAPHS),
        (r"Load weight begin|Starting to load model", "loading weights"),
        (r"Load weight end|Available KV cache memory", "allocating the cache"),
        (
            r"torch\.compile|Dynamo bytecode transform|Compiling a graph for"
            r"|DeepGEMM JIT Pre-Compile|Start compile",
            "compiling",
        ),
        (
            r"Application startup complete|Uvicorn running on|fired up and ready"
            r"|Starting vLLM (?:API )?server|[Ww]arming up",
            "warming up",
        ),
    )
)


def last_step(text: str) -> str:
    """The last step that a piece of log tells of, "" for none.

    >>> last_step("Loading safetensors checkpoint shards:  43% Completed | 3/7 [00:01")
    'loading weights 43 % (3/7 shards)'
    >>> last_step("[2026-11-22 20:50:16] Load weight begin. avail mem=18.78 GB")
    'loading weights'
    """
    for line in reversed(BREAKS.split(text)):
        for pattern, doing in _STEPS:
            if found := pattern.search(line):
                return doing.format(**found.groupdict())
    return ""


def start_limit(weight_bytes: int) -> float:
    """Seconds that a start may take with weights of this size.

    >>> start_limit(0), start_limit(140 * GIB)
    (300.0, 1700.0)
    """
    return BASE_START_SECONDS + SECONDS_PER_GIB * weight_bytes / GIB


def is_overdue(now: float, began: float, limit: float, moved: float) -> bool:
    """Whether a start is beyond its limit and takes no new steps either."""
    return now > began + limit and now > moved + NOTHING_NEW_SECONDS


@dataclass(slots=True)
class StartProgress:
    """Follows one start: its log from ``offset`` on, and the model's download."""

    log: Path
    #: How far the log has been read, in bytes.
    offset: int
    weights: Weights
    #: Bytes of the weights, as far as they are there.
    size: int = 0
    #: The last step.
    doing: str = ""
    #: When a step was last seen that this start had not shown before, a monotonic time:
    #: an engine that repeats its steps makes no progress.
    moved: float = float("-inf")
    _rest: str = ""
    _seen: set[str] = field(default_factory=set)
    _downloaded: int = -1

    def look(self) -> None:
        """Read what is new; blocks for as long as the disk takes."""
        step = last_step(self._read())
        if step:
            self._note(step)
        elif self.doing in ("", "loading weights") or "download" in self.doing:
            self._look_at_download()

    @property
    def has_loaded(self) -> bool:
        """Whether its log shows a step after the weights."""
        return bool(self.doing) and not self.doing.startswith(LOADING)

    def _note(self, step: str) -> None:
        self.doing = step
        if step not in self._seen:
            self._seen.add(step)
            self.moved = time.monotonic()
            self.size = self.weights.size()

    def _read(self) -> str:
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, 2)
                begin = self.offset if self.offset <= size else 0  # It was set aside.
                file.seek(max(begin, size - READ_LIMIT_BYTES))
                new = file.read()
                self.offset = file.tell()
        except OSError:
            return ""
        text = self._rest + new.decode(errors="replace")
        # A bar ends without a break: what follows the last one may be half a line.
        self._rest = BREAKS.split(text)[-1][-READ_LIMIT_BYTES:]
        return text if new else ""

    def _look_at_download(self) -> None:
        size = self.weights.downloaded()
        if size > self._downloaded >= 0:
            self._note(f"downloading the model, {size / GIB:.1f} GiB so far")
            # Also for less than a tenth of a GiB, which makes no new step.
            self.moved = time.monotonic()
        self._downloaded = size
