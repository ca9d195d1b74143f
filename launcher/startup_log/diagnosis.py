"""Why an engine failed to start, read from its log, and whether a retry may heal it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.startup_log.causes import (
    CONSEQUENCE,
    CUDA_ERROR,
    HARMLESS,
    KNOWN_CAUSES,
    MISSING,
    NO_HUB,
    KnownCause,
)
from modelserver.values import ModelSpec

#: Last lines of the log that are read; vLLM writes long tracebacks after the cause.
DIAGNOSED_LINES = 300


@dataclass(frozen=True, slots=True)
class FoundCause:
    """A known cause as one log shows it."""

    #: What it is and what to do, for people.
    text: str
    #: Whether it may go away by itself.
    may_heal: bool


def completing(model: ModelSpec) -> str:
    """What completes the environment of a model's engines, by whose it is.

    >>> from modelserver.values import Kind
    >>> completing(ModelSpec("m", Kind.COMPLETION, "/m", "vllm"))
    'run `modelserver engines install vllm`'
    """
    if model.image:
        return f"put it into the image {model.image}, or correct image"
    if model.command:
        where = f"where this model's command runs ({model.command[0]})"
        return f"install it {where}, or correct command"
    if model.interpreter:
        return f"install it for {model.interpreter}, or correct interpreter"
    return f"run `modelserver engines install {model.environment_name}`"


def find_cause(log: str, model: ModelSpec) -> FoundCause | None:
    """The known cause, with its remedy.

    The last line that fits decides: engines recover from earlier ones. But what is not
    there may be so because the hub could not be asked.

    >>> from modelserver.values import Kind
    >>> m = ModelSpec("m", Kind.COMPLETION, "/m", "vllm")
    >>> find_cause("error: unrecognized arguments: --tp", m).text.split(";")[0]
    'the engine does not know an argument (error: unrecognized arguments: --tp)'
    """
    lines = log.splitlines()[-DIAGNOSED_LINES:]
    last = [line for line in reversed(lines) if not HARMLESS.search(line)]
    cause, line = _find(KNOWN_CAUSES, last) or _find((CONSEQUENCE,), last) or (None, "")
    if cause is MISSING:
        cause, line = _find((NO_HUB,), last) or (cause, line)
    if cause is None:
        return None
    remedy = cause.remedy
    if cause.is_of_environment:
        remedy += completing(model)
    said = f"{cause.meaning} ({line.strip()[:200]}); {remedy}"
    return FoundCause(said, cause.may_heal)


def _find(
    causes: Sequence[KnownCause], lines: Iterable[str]
) -> tuple[KnownCause, str] | None:
    """The first line that fits a cause, with that cause."""
    for line in lines:
        for cause in causes:
            if cause.pattern.search(line):
                return cause, line
    return None


def find_cuda_error(log: str) -> str:
    """The last line that tells of an error of CUDA while it computed, "" for none.

    >>> find_cuda_error("RuntimeError: CUDA error: an illegal memory access was met")
    'RuntimeError: CUDA error: an illegal memory access was met'
    """
    for line in reversed(log.splitlines()[-DIAGNOSED_LINES:]):
        if CUDA_ERROR.search(line):
            return line.strip()[:200]
    return ""


def last_words(log: str) -> str:
    """The last line that an engine wrote, '' if it wrote none."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return "" if not lines or lines[-1].startswith("--- ") else lines[-1][:200]
