"""Decide where torch comes from: a CPU build is a quarter of the CUDA build's size.

Pure: the reports of pip go in, a choice with its reason comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

#: PyTorch's public index of CPU builds.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

#: What torch computes on.
TorchBuild = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class TorchFound:
    """What pip would install for a requirement: a version, and the file's name."""

    version: str
    file_name: str

    @property
    def is_cpu_build(self) -> bool:
        """True for a `+cpu` local version or a file whose name says cpu."""
        local_version = self.version.partition("+")[2]
        return "cpu" in local_version or "cpu" in self.file_name


@dataclass(frozen=True)
class TorchChoice:
    """The torch to install, and why."""

    requirement: str
    kind: TorchBuild
    #: Why, for people.
    why: str
    #: Whether pip installs it: pip reads the user's configuration, uv does not.
    with_pip: bool
    #: An index to look at in addition.
    index: str | None = None


def read_pip_report(report: Any) -> TorchFound | None:
    """Read a `pip install --report` document; None where it holds no torch.

    Only the file's name is kept of the address: an address can carry a password.
    """
    installs = report.get("install", []) if isinstance(report, dict) else []
    for item in installs:
        metadata = item.get("metadata", {})
        if metadata.get("name", "").lower() == "torch":
            url = item.get("download_info", {}).get("url", "")
            file_name = unquote(urlsplit(url).path).rpartition("/")[2]
            return TorchFound(version=metadata.get("version", ""), file_name=file_name)
    return None


def choose_torch(
    version: str, by_pip: TorchFound | None, on_cpu_index: TorchFound | None
) -> TorchChoice:
    """Prefer a CPU build: the user's own first, then PyTorch's, then the CUDA build.

    `by_pip` is what plain pip finds; `on_cpu_index` what it finds on PyTorch's CPU
    index, None where that was not asked or did not answer.
    """
    if by_pip is not None and by_pip.is_cpu_build:
        return TorchChoice(
            requirement=f"torch=={by_pip.version}",
            kind="cpu",
            why=f"a CPU build that pip's own configuration finds ({by_pip.file_name})",
            with_pip=True,
        )
    if on_cpu_index is not None and on_cpu_index.is_cpu_build:
        return TorchChoice(
            requirement=f"torch=={on_cpu_index.version}",
            kind="cpu",
            why=f"a CPU build from PyTorch's index {CPU_INDEX}, "
            "since pip's own configuration finds none",
            with_pip=True,
            index=CPU_INDEX,
        )
    return TorchChoice(
        requirement=f"torch=={version}",
        kind="cuda",
        why=f"the registry's CUDA build, which works on a CPU too but is 7 GB larger: "
        f"pip's own configuration finds no CPU build and {CPU_INDEX} "
        "offers none or cannot be reached from here",
        with_pip=by_pip is not None,
    )
