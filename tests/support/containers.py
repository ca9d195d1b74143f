"""Real containers for tests: an empty image, and this machine's own programs in it.

No image is pulled: one is made of a few folders, and what this machine has is mounted
into it, so that any program of this machine runs in a container.
"""

import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from tests.support.launchers import Site
from tests.support.processes import ROOT, end

#: What programs of this machine need of it.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
#: Processes of one container; podman's own default is more than some machines allow.
PROCESSES = 32_768


@dataclass(frozen=True)
class ContainerHost:
    """A docker or podman that has been seen to run a container.

    ``environment`` keeps a podman's images and containers in a folder of the test's.
    """

    program: str
    environment: dict[str, str]
    image: str

    def call(self, *arguments: str) -> str:
        """What a call prints; CalledProcessError where it fails."""
        done = subprocess.run(
            [self.program, *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def arguments(self, *more: Path) -> list[str]:
        """``container_args`` by which this machine's programs run in the image."""
        there = [Path(each) for each in SYSTEM] + [Path(sys.prefix), ROOT, *more]
        there.append(Path(sys.base_prefix))
        folders = sorted({str(p) for p in there if p.is_dir() and not p.is_symlink()})
        mounts = [w for f in folders for w in ("--volume", f"{f}:{f}:ro")]
        limit = f"nproc={PROCESSES}:{PROCESSES}"
        return [*mounts, "--workdir", str(ROOT), "--ulimit", limit]

    def run(self, *options: str, command: tuple[str, ...]) -> None:
        """Run something that is no engine."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        more = ("--network", "host", "--ulimit", f"nofile={files}:{files}")
        self.call("run", *options, *more, *self.arguments(), self.image, *command)

    def names(self) -> list[str]:
        """All containers of the engines, whether they run or not."""
        return self.call(
            *("ps", "--all", "--filter", "name=modelserver-"),
            *("--format", "{{.Names}}"),
        ).split()

    def clear(self) -> None:
        """Remove every container that was made of the image."""
        # By its number: podman does not find an image's short name here.
        number = self.call("image", "inspect", "--format", "{{.Id}}", self.image)
        made = ("--quiet", "--filter", f"ancestor={number.strip()}")
        if running := self.call("ps", *made).split():
            self.call("kill", *running)
        if left := self.call("ps", "--all", *made).split():
            self.call("rm", "--force", *left)

    def close(self) -> None:
        """Remove the image as well."""
        self.clear()
        self.call("rmi", "--force", self.image)


@contextmanager
def container_host() -> Iterator[ContainerHost]:
    """Docker or podman, whichever runs a container here; else the test is skipped."""
    # Sockets lie in it, whose paths are at most 107 bytes long.
    with TemporaryDirectory(prefix="pods-", dir="/tmp") as folder:
        found = _find(Path(folder))
        if isinstance(found, str):
            pytest.skip(f"nothing runs containers here: {found}")
        try:
            yield found
        finally:
            found.close()


@contextmanager
def containers_end(site: Site, host: ContainerHost) -> Iterator[None]:
    """End a site's containers while podman's own processes still live to do it."""
    try:
        yield
    finally:
        for launcher in site.launchers:
            end(launcher.process)
        host.clear()


def _find(folder: Path) -> ContainerHost | str:
    faults = []
    for program in ("docker", "podman"):
        if not shutil.which(program):
            faults.append(f"{program} is not installed")
            continue
        runtimes = [""] if program == "docker" else ["", "crun", "runc"]
        for runtime in runtimes:
            own = {} if program == "docker" else _podman(folder, runtime)
            try:
                return _tried(
                    ContainerHost(program, own, f"modelserver-test:{uuid4()}")
                )
            except (AssertionError, subprocess.SubprocessError) as error:
                faults.append(f"{program} {runtime}: {error}"[:300])
    return "; ".join(faults)


def _tried(host: ContainerHost) -> ContainerHost:
    subprocess.run(
        [host.program, "import", "-", host.image],
        env={**os.environ, **host.environment},
        input=_skeleton(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    host.run("--rm", command=(sys.executable, "-V"))
    return host


def _skeleton() -> bytes:
    """A tar of empty folders, and of those links by which /bin is /usr/bin."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in (*SYSTEM, "/proc", "/sys", "/dev", "/tmp", "/root", "/run"):
                entry = tarfile.TarInfo(name.lstrip("/"))
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                if Path(name).is_symlink():
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name)
                archive.addfile(entry)
        return buffer.getvalue()


def _podman(folder: Path, runtime: str) -> dict[str, str]:
    """Podman's environment for images and containers in a folder of their own."""
    folder.mkdir(exist_ok=True)
    storage, config = folder / "storage.conf", folder / "containers.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\n'
        f'runroot = "{folder}/run"\n'
    )
    config.write_text(f'[engine]\nruntime = "{runtime}"\n' if runtime else "")
    return {
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(config),
    }
