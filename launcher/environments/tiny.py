"""Have an engine environment write the tiny models, which need no download."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from launcher.environments.children import child_environment
from launcher.environments.paths import STARTERS, standins_path
from launcher.environments.variables import inherited
from modelserver.errors import EngineEnvironmentError

#: The script that writes them. It is not in this folder: Python looks there first, and
#: would take a module of ours for a library's.
SCRIPT = STARTERS / "tiny_models.py"
#: Seconds in which the models must be written; an idle machine takes 5.
WRITE_SECONDS = 180.0


def ensure_tiny_models(interpreter: Path, out: Path) -> None:
    """Write `out`/tiny-chat and `out`/tiny-embed where they are not complete.

    `interpreter` is the python of an engine environment. Raises EngineEnvironmentError
    with the last lines of what it said where it fails.
    """
    # SGLang's own folder of stand-ins: transformers imports torchvision as well.
    extra = {"PYTHONPATH": str(standins_path())}
    try:
        done = subprocess.run(
            [str(interpreter), str(SCRIPT), str(out)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(inherited(os.environ), extra),
            timeout=WRITE_SECONDS,
            check=False,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise EngineEnvironmentError(
            f"writing the tiny models to {out} took longer than {WRITE_SECONDS:.0f} s; "
            "is the machine overloaded? Try again"
        ) from None
    if done.returncode != 0:
        said = "\n".join(done.stdout.splitlines()[-5:])
        raise EngineEnvironmentError(
            f"{interpreter} could not write the tiny models to {out}; "
            f"install its engine again. It said:\n{said}"
        )
