"""What happened to GPUs, for as long as the host is up."""

import json
import logging
from pathlib import Path

import pytest

from launcher.host.gpu_faults import (
    DEATHS_SECONDS,
    REMEDY,
    CudaDeath,
    GpuFaults,
    find_bad_gpus,
)
from launcher.startup_log.diagnosis import find_cuda_error

LINE = "RuntimeError: CUDA error: an illegal memory access was encountered"


def deaths(*places: str, at: float = 5000.0) -> list[CudaDeath]:
    """Engines that died on GPUs by their letters, "ab" for two."""
    return [
        CudaDeath(at + number, f"m-{number % 2}", tuple(place), LINE)
        for number, place in enumerate(places)
    ]


@pytest.mark.parametrize(
    ("places", "bad"),
    [
        ("aa", ""),
        ("aaa", "a"),
        ("aaab", "a"),
        # Engines die everywhere: it is a model or its kernels.
        ("aaabbb", ""),
        ("abcabc", ""),
    ],
)
def test_three_deaths_on_one_gpu_put_it_aside(places: str, bad: str):
    assert set(find_bad_gpus(deaths(*places), 5010.0)) == set(bad)


def test_the_gpus_of_one_engine_cannot_be_told_apart():
    assert not find_bad_gpus(deaths("ab", "ab", "ab"), 5010.0)
    assert set(find_bad_gpus(deaths("ab", "ac", "ad"), 5010.0)) == {"a"}


def test_deaths_of_long_ago_do_not_count():
    assert not find_bad_gpus(deaths("a", "a", "a"), 5001.5 + DEATHS_SECONDS)


def test_faults_are_kept_by_uuid_until_the_host_boots_again(tmp_path: Path):
    path = tmp_path / "gpu-faults.json"
    faults = GpuFaults(path)
    faults.note_xid("GPU-a", 13)
    faults.note_xid("GPU-a", 63)
    faults.note_xid("GPU-b", 74)
    for _ in range(3):
        faults.note_death("m-0", ["GPU-c"], LINE)
    later = GpuFaults(path)
    assert later.xids("GPU-a") == (13, 63)
    assert later.find_fault("GPU-a") == ""
    assert [note.split(":")[0] for note in later.notes("GPU-a")] == [
        "XID 63, a row or page of its memory is to be replaced"
    ]
    assert later.find_fault("GPU-b") == f"XID 74, NVLink error; {REMEDY}"
    assert later.find_fault("GPU-c") == (
        "engines died of CUDA errors on it 3 times within an hour (m-0; the last: "
        f"{LINE}); {REMEDY}"
    )
    assert later.find_fault("GPU-d", "GPU-c") == later.find_fault("GPU-c")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "boot": "another"}))
    assert GpuFaults(path).find_fault("GPU-b") == ""


def test_a_damaged_file_is_told_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "gpu-faults.json"
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        faults = GpuFaults(path)
    assert "earlier faults are lost" in caplog.text
    faults.note_xid("GPU-a", 79)
    assert GpuFaults(path).find_fault("GPU-a")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (LINE, True),
        ("CUDA error: device-side assert triggered", False),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling", True),
        ("cudaErrorECCUncorrectable", True),
        ("torch.OutOfMemoryError: CUDA out of memory.", False),
        ("RuntimeError: CUDA error: out of memory", False),
        ("RuntimeError: CUDA error: no kernel image is available", False),
        ("capturing CUDA graphs", False),
    ],
)
def test_errors_of_cuda_are_told_from_others(line: str, found: bool):
    assert bool(find_cuda_error(f"before\n{line}\nafter")) is found
