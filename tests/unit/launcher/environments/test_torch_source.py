"""Where torch comes from."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.environments.torch_source import (
    CPU_INDEX,
    TorchFound,
    choose_torch,
    read_pip_report,
)

CPU = TorchFound("2.13.0+cpu", "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl")
CUDA = TorchFound("2.13.0", "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl")
GB = 1_000_000_000


def pip_report(name: str, version: str, url: str) -> dict[str, Any]:
    metadata = {"name": name, "version": version}
    return {"install": [{"metadata": metadata, "download_info": {"url": url}}]}


def test_report_gives_the_version_and_the_decoded_file_name() -> None:
    url = "https://index.example/whl/torch-2.13.0%2Bcpu-cp311-cp311-linux.whl"
    found = read_pip_report(pip_report("torch", "2.13.0+cpu", url))
    assert found == TorchFound("2.13.0+cpu", "torch-2.13.0+cpu-cp311-cp311-linux.whl")


def test_password_in_an_address_is_not_kept() -> None:
    url = "https://user:secret@index.example/torch-2.13.0+cpu-cp311.whl?token=secret"
    found = read_pip_report(pip_report("torch", "2.13.0+cpu", url))
    assert "secret" not in repr(choose_torch("2.13.0", found, None))


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"install": []},
        [],
        None,
        pip_report("numpy", "2.4.6", "https://index.example/numpy-2.4.6.whl"),
    ],
)
def test_report_without_torch_finds_nothing(report: Any) -> None:
    assert read_pip_report(report) is None


@pytest.mark.parametrize(
    ("version", "file_name", "is_cpu_build"),
    [
        ("2.13.0+cpu", "torch-2.13.0.whl", True),
        ("2.13.0+cpu.cxx11.abi", "torch-2.13.0.whl", True),
        ("2.13.0", "torch_cpu-2.13.0-cp311.whl", True),
        ("2.13.0", "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("2.13.0+cu130", "torch-2.13.0+cu130-cp311.whl", False),
    ],
)
def test_cpu_build_is_known_by_its_version_or_its_file(
    version: str, file_name: str, is_cpu_build: bool
) -> None:
    assert TorchFound(version, file_name).is_cpu_build is is_cpu_build


def test_cpu_build_of_the_users_own_pip_comes_first() -> None:
    choice = choose_torch("2.13.0", by_pip=CPU, on_cpu_index=CPU)
    assert (choice.requirement, choice.kind) == ("torch==2.13.0+cpu", "cpu")
    assert choice.with_pip
    assert choice.index is None
    assert CPU.file_name in choice.why


@pytest.mark.parametrize("by_pip", [None, CUDA])
def test_cpu_index_comes_second(by_pip: TorchFound | None) -> None:
    choice = choose_torch("2.13.0", by_pip=by_pip, on_cpu_index=CPU)
    assert (choice.requirement, choice.kind) == ("torch==2.13.0+cpu", "cpu")
    assert choice.index == CPU_INDEX
    assert CPU_INDEX in choice.why


@pytest.mark.parametrize("on_cpu_index", [None, CUDA])
def test_cuda_build_is_the_fallback_and_says_why(
    on_cpu_index: TorchFound | None,
) -> None:
    choice = choose_torch("2.13.0", by_pip=CUDA, on_cpu_index=on_cpu_index)
    assert (choice.requirement, choice.kind) == ("torch==2.13.0", "cuda")
    assert choice.with_pip
    assert choice.index is None
    assert "7 GB larger" in choice.why


def test_uv_installs_the_fallback_where_pip_finds_nothing() -> None:
    assert not choose_torch("2.13.0", by_pip=None, on_cpu_index=None).with_pip
