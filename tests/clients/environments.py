"""Environments that hold what `pip install` brings, and what they weigh."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

#: The Python versions that the client is for.
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
#: Building and installing take long on a machine without a cache of packages.
INSTALL_SECONDS = 280
UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment with modelserver."""

    python: Path

    @property
    def site(self) -> Path:
        """Where its packages are."""
        (site,) = self.python.parent.parent.glob("lib/python*/site-packages")
        return site

    def packages(self) -> int:
        """How many distributions are installed."""
        return len(list(self.site.glob("*.dist-info")))

    def megabytes(self) -> float:
        """What they take on the disk, without bytecode."""
        files = (path for path in self.site.rglob("*") if path.suffix != ".pyc")
        return sum(path.lstat().st_size for path in files if path.is_file()) / 1e6

    def run(self, *arguments: str, cwd: Path, **environment: str) -> str:
        """What this Python prints; its errors are the failure's message."""
        return run(str(self.python), *arguments, cwd=cwd, **environment)


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a program to its end; its output is the failure's message."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def find_python(version: str) -> Path | None:
    """An interpreter of this version on this machine, None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    named = shutil.which(f"python{version}")
    found = [Path(named)] if named else []
    for path in (*found, *pyenv.glob(f"versions/{version}.*/bin/python")):
        said = subprocess.run([path, "-V"], capture_output=True, text=True)
        if said.stdout.startswith(f"Python {version}."):
            return path
    return None


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    run(str(UV), "build", "--wheel", "--out-dir", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("modelserver-*.whl")
    return wheel


def install(wheel: str, folder: Path, python: Path, *options: str) -> Environment:
    """A new environment with the wheel, whose path may end in an extra: ``[host]``."""
    run(str(UV), "venv", "--python", str(python), str(folder), cwd=ROOT)
    made = Environment(folder / "bin" / "python")
    argv = ("pip", "install", "--python", str(made.python), *options, wheel)
    run(str(UV), *argv, cwd=ROOT)
    return made
