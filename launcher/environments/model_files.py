"""Have an engine environment fetch the small files of a model from the hub."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from launcher.environments.children import child_environment
from launcher.environments.paths import STARTERS
from launcher.environments.variables import inherited

_log = logging.getLogger(__name__)

#: The script that fetches them.
SCRIPT = STARTERS / "model_files.py"
#: What the hub calls a model; whatever else a path is, it is a folder.
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
#: Seconds that this may take; a start then goes on without them.
FETCH_SECONDS = 20.0


def fetch_model_files(
    interpreter: Path, model: str, revision: str, variables: Mapping[str, str]
) -> None:
    """Bring what says how a model makes its vectors into the hub's cache, if it can.

    ``variables`` are those of its engine. A folder has all of its files.
    """
    if not HUB_ID.fullmatch(model) or Path(model).is_dir():
        return
    try:
        done = subprocess.run(
            [str(interpreter), str(SCRIPT), model, revision],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(inherited(os.environ), variables),
            timeout=FETCH_SECONDS,
            check=False,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("the files of %s were not fetched: %s", model, error)
        return
    if done.returncode != 0:
        said = (done.stdout.splitlines() or [""])[-1]
        _log.warning("the files of %s were not fetched: %s", model, said)
