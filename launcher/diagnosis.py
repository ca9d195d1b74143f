"""Why an engine failed to start, read from its log: causes that no retry heals."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """What a line of the log means, and what to do about it."""

    pattern: re.Pattern[str]
    meaning: str
    remedy: str


def _cause(pattern: str, meaning: str, remedy: str) -> Cause:
    return Cause(re.compile(pattern, re.IGNORECASE), meaning, remedy)


CAUSES = (
    # A CUDA out-of-memory at load never heals by retrying: straight to FATAL.
    _cause(
        r"CUDA out of memory|OutOfMemoryError|Not enough memory\. Please",
        "its model does not fit the GPUs' memory",
        "give it more gpus, a smaller context_length or a smaller model",
    ),
    _cause(
        r"unrecognized arguments?:|error: argument |invalid choice:",
        "the engine does not know an argument",
        "correct extra_args or command of this model in the fleet file",
    ),
    _cause(
        r"gated repo|GatedRepoError|401 Client Error|Access to model .* is restricted",
        "its model is behind a licence or a login",
        "accept the licence on the model's page and set HF_TOKEN",
    ),
    _cause(
        r"RepositoryNotFoundError|is not a local folder and is not a valid model"
        r"|Repo id must|does not appear to have a file named config\.json"
        r"|Can't load the configuration of|Unrecognized model in"
        r"|No such file or directory|can't open file",
        "a file or a model is not there",
        "correct path or command of this model in the fleet file",
    ),
    _cause(
        r"ModuleNotFoundError|No module named",
        "the engine's environment is incomplete",
        "run `modelserver engines install` for this engine, or correct interpreter",
    ),
)


def hopeless(log: str) -> str:
    """The cause with its remedy if a retry is in vain, else ''.

    The last telling line decides: engines recover from earlier ones.

    >>> hopeless("error: unrecognized arguments: --tp").split(";")[0]
    'the engine does not know an argument (error: unrecognized arguments: --tp)'
    >>> hopeless("exit")
    ''
    """
    for line in reversed(log.splitlines()[-60:]):
        for cause in CAUSES:
            if cause.pattern.search(line):
                return f"{cause.meaning} ({line.strip()[:200]}); {cause.remedy}"
    return ""


def last_words(log: str) -> str:
    """The last line that an engine wrote, '' if it wrote none."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return "" if not lines or lines[-1].startswith("--- ") else lines[-1][:200]
