"""What a host is told of its engines' surroundings."""

import os
from pathlib import Path

import pytest

from launcher.environments import findings
from launcher.environments.check import cuda_of, stale_bytes
from launcher.environments.findings import GB, Finding, Level
from launcher.environments.paths import hub_folder


@pytest.mark.parametrize(
    ("cuda", "version", "level"),
    [
        ("", "no NVML", Level.OK),
        ("13.0", "580.65.06", Level.OK),
        ("12.8", "525.60.13", Level.OK),
        ("13.0", "570.86.15", Level.PROBLEM),
        ("13.0", "no driver: NVML Shared Library Not Found", Level.WARNING),
        ("99.1", "580.65.06", Level.WARNING),
    ],
)
def test_a_driver_must_be_new_enough_for_torch(cuda: str, version: str, level: Level):
    assert findings.driver("sglang 0.5.23", cuda, version).level is level


def test_an_old_driver_is_told_with_both_versions_and_the_remedy():
    found = findings.driver("vllm 0.33.0", "13.0", "570.86.15")
    assert found.fact == (
        "driver 570.86.15, torch built for CUDA 13.0, which needs driver 580"
    )
    assert found.remedy.startswith("update the driver to 580 or newer")


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (findings.glibc("glibc", "2.28"), Level.OK),
        (findings.glibc("glibc", "2.17"), Level.PROBLEM),
        (findings.glibc("", ""), Level.PROBLEM),
        (findings.files(65536, -1), Level.OK),
        (findings.files(-1, -1), Level.OK),
        (findings.files(1024, 4096), Level.WARNING),
        (findings.memlock(8_388_608, gpus=1), Level.OK),
        (findings.memlock(8_388_608, gpus=2), Level.WARNING),
        (findings.memlock(-1, gpus=2), Level.OK),
        (findings.shared_memory(64_000_000), Level.WARNING),
        (findings.shared_memory(8 * GB), Level.OK),
        (findings.disk("disk", "/d", 100 * GB), Level.OK),
        (findings.disk("disk", "/d", 5 * GB), Level.WARNING),
        (findings.disk("disk", "/d", 0), Level.PROBLEM),
        (findings.kernels("/c", True, True, 0), Level.OK),
        (findings.kernels("/c", True, True, 2 * GB), Level.WARNING),
        (findings.kernels("/c", True, False, 0), Level.PROBLEM),
        (findings.kernels("/c", False, True, 0), Level.PROBLEM),
        (findings.compiler("/usr/bin/cc", True, needed=True), Level.OK),
        (findings.compiler("", True, needed=True), Level.PROBLEM),
        (findings.compiler("/usr/bin/cc", False, needed=False), Level.WARNING),
        (findings.library("libcuda.so.1", True, needed=True), Level.OK),
        (findings.library("libcuda.so.1", False, needed=False), Level.OK),
        (findings.library("libcuda.so.1", False, needed=True), Level.PROBLEM),
    ],
)
def test_what_is_not_in_order_has_a_remedy(found: Finding, level: Level):
    assert found.level is level
    assert bool(found.remedy) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("cuda: Optional[str] = '13.0'\n", "13.0"),
        ("cuda: str | None = None\n", ""),
        ("cuda = '12.8'\nhip = None\n", "12.8"),
    ],
)
def test_the_cuda_of_torch_is_read_without_importing_it(
    text: str, cuda: str, tmp_path: Path
):
    folder = tmp_path / "lib" / "python3.11" / "site-packages" / "torch"
    folder.mkdir(parents=True)
    (folder / "version.py").write_text(f"__version__ = '2.13.0'\n{text}")
    assert cuda_of(tmp_path) == cuda


def test_an_environment_without_torch_has_no_cuda(tmp_path: Path):
    assert cuda_of(tmp_path) == ""


def test_weights_are_where_hugging_face_keeps_them():
    assert hub_folder({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}) == Path("/a")
    assert hub_folder({"HUGGINGFACE_HUB_CACHE": "/a"}) == Path("/a")
    assert hub_folder({"HF_HOME": "/b"}) == Path("/b/hub")
    assert hub_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")


def test_kernels_count_as_stale_that_nobody_used_since(tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "new"
    for file in (old, new):
        file.write_bytes(b"x" * 8192)
    os.utime(old, (1000, 1000))
    assert 8192 <= stale_bytes(tmp_path, before=2000) < 16384
    assert stale_bytes(tmp_path, before=0) == 0
    assert stale_bytes(tmp_path / "gone", before=2000) == 0
