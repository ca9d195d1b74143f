"""Install and remove engine environments."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from launcher.environments.children import Children, InstallProgress, ReportProgress
from launcher.environments.install_lock import exclusive
from launcher.environments.paths import (
    MARKER,
    Installed,
    environment_path,
    find_installed,
    python_of,
    standins_path,
    write_marker,
)
from launcher.environments.recipes import GB, Recipe, recipe_of
from launcher.environments.torch_source import (
    CPU_INDEX,
    TorchChoice,
    TorchFound,
    choose_torch,
    read_pip_report,
)
from modelserver.errors import EngineEnvironmentError

#: Bytes that stay free on the disk beside the environment.
MARGIN_BYTES = 1 * GB
#: Seconds for pip's report. Where an index has no metadata, pip fetches 800 MB before.
PIP_REPORT_SECONDS = 180.0
#: Seconds after which an index that does not answer counts as out of reach.
CPU_INDEX_SECONDS = 5
#: Seconds for the whole look-up on the CPU index.
CPU_INDEX_REPORT_SECONDS = 30.0
#: Seconds in which the installed engine must be imported.
IMPORT_SECONDS = 300.0
#: The exit code of compileall where a file has newer syntax than this Python. torch has
#: such files, which it imports on newer Pythons only.
COMPILED_ALL_BUT_SOME = 1

#: Imports the engine and prints its version and torch's.
IMPORT_CHECK = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
package = importlib.import_module(sys.argv[2])
import torch
versions = {"package": package.__version__, "torch": torch.__version__}
print(json.dumps(versions))
"""


def disk_refusal(
    folder: Path, free_bytes: int, needed_bytes: int, margin_bytes: int = MARGIN_BYTES
) -> str | None:
    """Say why the disk is too full, with figures; None where there is enough room."""
    if free_bytes >= needed_bytes + margin_bytes:
        return None
    return (
        f"too little disk for {folder}: {needed_bytes / GB:.1f} GB are needed and "
        f"{margin_bytes / GB:.1f} GB are to stay free, but {free_bytes / GB:.1f} GB "
        "are free; free some, or choose another home folder"
    )


def install(name: str, home: Path, report: ReportProgress) -> Installed:
    """Make the environment of engine `name` under `home`, or return the complete one.

    An incomplete environment is made anew. A second caller waits for the first. Raises
    EngineEnvironmentError for an unknown name, a full disk or a step that fails; then
    only the log is left.
    """
    recipe = recipe_of(name)
    path = environment_path(name, home)
    with exclusive(_beside(path, ".lock"), report) as lock_descriptor:
        present = find_installed(recipe, home)
        if present is not None:
            return present
        _require_disk(path, recipe.needed_bytes)
        log = _beside(path, ".log")
        log.write_text("", encoding="utf-8")
        children = Children(log=log, lock_descriptor=lock_descriptor, report=report)
        try:
            return _Installation(recipe, path, children).run()
        except EngineEnvironmentError:
            # What is half there is of use to nobody, and may have filled the disk.
            shutil.rmtree(path, ignore_errors=True)
            raise


def remove(name: str, home: Path) -> None:
    """Delete the environment of engine `name` and its log; it need not exist."""
    path = environment_path(name, home)
    with exclusive(_beside(path, ".lock"), lambda progress: None):
        # First the marker: a removal that is killed leaves an incomplete environment.
        (path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        _beside(path, ".log").unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    # Not with_suffix: that would take the version's last number for a suffix.
    return path.with_name(path.name + suffix)


def _require_disk(path: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(path.parent).free
    refusal = disk_refusal(path, free_bytes, needed_bytes)
    if refusal is not None:
        raise EngineEnvironmentError(refusal)


def _size_bytes(folder: Path) -> int:
    """Return what the files below `folder` take, as `du` counts."""
    return sum(
        (Path(parent) / file).lstat().st_blocks * 512
        for parent, _, files in os.walk(folder)
        for file in files
    )


@dataclass(frozen=True)
class _Installation:
    """The steps of one installation, in the order of `run`."""

    recipe: Recipe
    path: Path
    children: Children

    def run(self) -> Installed:
        started = time.monotonic()
        self._create()
        torch_source = ""
        if self.recipe.torch is not None:
            choice = self._find_torch(self.recipe.torch)
            torch_source = f"{choice.requirement}: {choice.why}"
            self._install_torch(choice)
        self._install_packages()
        self._compile()
        version, torch_version = self._check()
        done = Installed(
            name=self.recipe.name,
            path=self.path,
            version=version,
            torch_version=torch_version,
            torch_source=torch_source,
            size_bytes=_size_bytes(self.path),
            seconds=time.monotonic() - started,
        )
        write_marker(done)
        return done

    def _progress(self, index: int, what: str, why: str) -> InstallProgress:
        return InstallProgress(index=index, steps=self._last_step, what=what, why=why)

    @property
    def _packages_step(self) -> int:
        """The number of the first package step; finding and installing torch are 2."""
        return 2 if self.recipe.torch is None else 4

    @property
    def _last_step(self) -> int:
        return self._packages_step + len(self.recipe.steps) + 1

    def _uv_install(self, *arguments: str) -> list[str]:
        python = str(python_of(self.path))
        return [find_uv_bin(), "pip", "install", "--python", python, *arguments]

    def _create(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)
        # --seed puts pip into the environment: it reads the user's pip configuration.
        argv = [find_uv_bin(), "venv", "--seed", "--python", sys.executable]
        progress = self._progress(
            1, "creating the environment", "an engine's packages clash with all others"
        )
        self.children.run([*argv, str(self.path)], progress)

    def _find_torch(self, version: str) -> TorchChoice:
        progress = self._progress(
            2,
            "looking for a CPU build of torch",
            "it is 7 GB smaller than the CUDA build that the registry has",
        )
        self.children.report(progress)
        by_pip = self._ask_pip(version, PIP_REPORT_SECONDS)
        on_cpu_index = None
        if by_pip is None or not by_pip.is_cpu_build:
            timeout = f"--timeout={CPU_INDEX_SECONDS}"
            options = ("--index-url", CPU_INDEX, timeout, "--retries=0")
            on_cpu_index = self._ask_pip(version, CPU_INDEX_REPORT_SECONDS, *options)
        return choose_torch(version, by_pip, on_cpu_index)

    def _ask_pip(
        self, version: str, within_seconds: float, *options: str
    ) -> TorchFound | None:
        argv = [str(python_of(self.path)), "-m", "pip", "install", "--dry-run"]
        argv += ["--ignore-installed", "--no-deps", "--quiet", "--report", "-"]
        output = self.children.output(
            [*argv, *options, f"torch=={version}"], within_seconds=within_seconds
        )
        try:
            return read_pip_report(json.loads(output or ""))
        except ValueError:
            return None

    def _install_torch(self, choice: TorchChoice) -> None:
        if choice.kind == "cuda":
            _require_disk(self.path, self.recipe.needed_with_cuda_bytes)
        argv = self._uv_install(choice.requirement)
        if choice.with_pip:
            argv = [str(python_of(self.path)), "-m", "pip", "install"]
            argv += ["--extra-index-url", choice.index] if choice.index else []
            argv += [choice.requirement]
        self.children.run(argv, self._progress(3, "installing torch", choice.why))

    def _install_packages(self) -> None:
        for index, step in enumerate(self.recipe.steps, start=self._packages_step):
            options = () if step.with_dependencies else ("--no-deps",)
            if step.excluded:
                excluded = self.path / "excluded.txt"
                excluded.write_text("\n".join(step.excluded), encoding="utf-8")
                options = (*options, "--excludes", str(excluded))
            self.children.run(
                self._uv_install(*options, *step.requirements),
                self._progress(index, step.what, step.why),
            )

    def _compile(self) -> None:
        jobs = str(os.cpu_count() or 2)
        argv = [str(python_of(self.path)), "-m", "compileall", "-q", "-j", jobs]
        progress = self._progress(
            self._last_step - 1,
            "compiling to bytecode",
            "done once here, so that no start of the engine has to do it",
        )
        self.children.run(
            [*argv, str(self.path / "lib")],
            progress,
            accept=(0, COMPILED_ALL_BUT_SOME),
        )

    def _check(self) -> tuple[str, str]:
        """Import the engine in its own interpreter; return its and torch's version."""
        recipe = self.recipe
        self.children.report(
            self._progress(
                self._last_step,
                "importing the engine",
                "to know now, and not at its first start, whether it works",
            )
        )
        extra = {"PYTHONPATH": str(standins_path())} if recipe.uses_standins else {}
        argv = [
            str(python_of(self.path)),
            "-c",
            IMPORT_CHECK,
            recipe.check,
            recipe.package,
        ]
        output = self.children.output(
            argv, within_seconds=IMPORT_SECONDS, extra_environment=extra
        )
        if not output:
            raise EngineEnvironmentError(
                f"engine {recipe.name} was installed in {self.path} and could not be "
                f"imported, so it is removed; see {self.children.log}, then run: "
                f"modelserver engines install {recipe.requirement}"
            )
        versions = json.loads(output.splitlines()[-1])
        return str(versions["package"]), str(versions["torch"])
