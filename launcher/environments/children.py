"""Run installers as child processes."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelserver.errors import EngineEnvironmentError

#: Seconds between two looks at a child.
POLL_SECONDS = 0.5
#: Bytes at the end of a log in which its last line is looked for.
TAIL_BYTES = 4096
#: Characters of a complaint that are shown at most.
COMPLAINT_CHARACTERS = 500

#: Variables of the caller that would lead a child to the caller's own packages, or (the
#: last) keep it from writing the bytecode that makes an engine's start short.
UNWANTED = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")


#: uv's variables for the system's certificates: today's, and that of older releases.
UV_CERTIFICATES = ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS")


@dataclass(frozen=True)
class InstallProgress:
    """Where an installation is: at step `index` of `steps`, counted from 1."""

    index: int
    steps: int
    what: str
    why: str
    seconds: float = 0.0
    last_line: str = ""


#: What gets each progress.
ReportProgress = Callable[[InstallProgress], None]


def child_environment(
    environment: Mapping[str, str], extra: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a child: the caller's, which holds proxies and the
    settings of pip and uv, without what would lead it astray, and `extra`."""
    kept = {key: value for key, value in environment.items() if key not in UNWANTED}
    return system_certificates(environment) | kept | dict(extra)


def system_certificates(environment: Mapping[str, str]) -> dict[str, str]:
    """What makes uv trust the authorities that this system trusts, as pip does.

    Nothing where the system has none, or where the user has chosen.
    """
    paths = ssl.get_default_verify_paths()
    known = paths.cafile or (paths.capath and any(Path(paths.capath).iterdir()))
    if not known or any(name in environment for name in UV_CERTIFICATES):
        return {}
    return dict.fromkeys(UV_CERTIFICATES, "1")


def last_line(log: Path) -> str:
    """Return the last line of a log that has something on it."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = stream.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")


def complaint(log: Path) -> str:
    """Return the last error in a log, with the cause that uv and pip write after it."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()
    for place in reversed(range(len(lines))):
        if lines[place].lower().startswith("error:"):
            said = " ".join(line.strip() for line in lines[place:] if line.strip())
            return said[:COMPLAINT_CHARACTERS]
    return last_line(log)


@dataclass(frozen=True)
class Children:
    """Starts the children of one installation.

    Children inherit the lock's descriptor: the lock then outlives this process for as
    long as an orphaned installer still writes into the environment.
    """

    log: Path
    lock_descriptor: int
    report: ReportProgress

    def run(
        self,
        argv: Sequence[str],
        progress: InstallProgress,
        *,
        accept: Sequence[int] = (0,),
        extra_environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run `argv` to its end and report on the way.

        Raises EngineEnvironmentError for an exit code that is not in `accept`.
        """
        started = time.monotonic()
        with self.log.open("ab") as stream:
            stream.write(f"\n$ {' '.join(argv)}\n".encode())
            stream.flush()
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=child_environment(os.environ, extra_environment or {}),
                pass_fds=(self.lock_descriptor,),
            )
        try:
            self._wait(child, progress, started)
        except BaseException:
            child.kill()
            child.wait()
            raise
        if child.returncode not in accept:
            raise EngineEnvironmentError(
                f"{progress.what} failed (exit code {child.returncode}): "
                f"{complaint(self.log)}; all of the output is in {self.log}"
            )

    def _wait(
        self, child: subprocess.Popen[bytes], progress: InstallProgress, started: float
    ) -> None:
        while True:
            seconds = time.monotonic() - started
            line = last_line(self.log)
            self.report(replace(progress, seconds=seconds, last_line=line))
            try:
                child.wait(timeout=POLL_SECONDS)
                return
            except subprocess.TimeoutExpired:
                continue

    def output(
        self,
        argv: Sequence[str],
        *,
        within_seconds: float,
        extra_environment: Mapping[str, str] | None = None,
    ) -> str | None:
        """Return what `argv` prints; None where it fails or takes too long."""
        with self.log.open("ab") as stream:
            stream.write(f"\n$ {' '.join(argv)}\n".encode())
            stream.flush()
            try:
                done = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    env=child_environment(os.environ, extra_environment or {}),
                    pass_fds=(self.lock_descriptor,),
                    timeout=within_seconds,
                    check=False,
                    text=True,
                )
            except subprocess.TimeoutExpired:
                stream.write(f"no answer within {within_seconds} s\n".encode())
                return None
        return done.stdout if done.returncode == 0 else None
