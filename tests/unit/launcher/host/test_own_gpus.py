"""Which GPUs of its host a launcher gives to engines."""

import pytest

from launcher.host.own_gpus import OwnGpus
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import HostSection
from modelserver.settings import Settings, load
from tests.support.processes import gpus


def left(own: OwnGpus, number: int = 4) -> list[int]:
    """The indexes of the GPUs that it may use."""
    return [gpu.index for gpu in own.mark(gpus(number)) if not gpu.left_out]


@pytest.mark.parametrize(
    ("variable", "value", "indexes"),
    [
        ("CUDA_VISIBLE_DEVICES", "0, 2", [0, 2]),
        ("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-3", [1, 3]),
        ("CUDA_VISIBLE_DEVICES", "", []),
        ("CUDA_VISIBLE_DEVICES", "-1", []),
        ("CUDA_VISIBLE_DEVICES", "9", []),
        ("SLURM_JOB_GPUS", "1,2", [1, 2]),
        # The driver counts only those that Slurm lets the job see.
        ("SLURM_JOB_GPUS", "1,2,5,6", [0, 1, 2, 3]),
        # Ranges; and the driver shows more than the job was given.
        ("SLURM_JOB_GPUS", "0-1", [0, 1]),
        ("SLURM_JOB_GPUS", "0,2-3", [0, 2, 3]),
        ("SLURM_JOB_GPUS", "2,5", [2]),
        ("SLURM_JOB_GPUS", "0,1,", [0, 1]),
        ("SLURM_JOB_GPUS", "4-7", [0, 1, 2, 3]),
        ("SLURM_JOB_GPUS", "none", []),
        ("CUDA_VISIBLE_DEVICES", "0,-1,1", [0]),
        ("CUDA_VISIBLE_DEVICES", "NoDevFiles", []),
        ("CUDA_VISIBLE_DEVICES", "GPU-", []),
        ("", "", [0, 1, 2, 3]),
    ],
)
def test_a_launchers_variables_keep_it_to_some_gpus(
    variable: str, value: str, indexes: list[int]
):
    assert left(OwnGpus(None, variable, value)) == indexes


def settings(**variables: str) -> Settings:
    return load({"MODELSERVER_HOST": "h1", "HOME": "/tmp", **variables})


def test_cudas_variable_goes_before_slurms_and_counts_though_it_is_empty():
    both = settings(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_GPUS="6")
    assert both.gpu_variable == ("CUDA_VISIBLE_DEVICES", "0")
    assert settings(CUDA_VISIBLE_DEVICES="").gpu_variable[0] == "CUDA_VISIBLE_DEVICES"
    assert settings(SLURM_JOB_GPUS="6").gpu_variable == ("SLURM_JOB_GPUS", "6")
    assert settings(SLURM_JOB_GPUS="").gpu_variable == ("", "")


def test_a_host_of_the_fleet_lists_its_gpus_and_both_count():
    fleet = Fleet(hosts=(HostSection(name="h1", gpus=(0, 1)), HostSection(name="h2")))
    own = OwnGpus.of(fleet, settings(CUDA_VISIBLE_DEVICES="1,2"), {})
    assert left(own) == [1]
    assert [gpu.left_out for gpu in own.mark(gpus(3))] == [
        "the launcher has CUDA_VISIBLE_DEVICES=1,2",
        "",
        "gpus of this host in [[hosts]] are [0, 1]",
    ]
    assert left(OwnGpus.of(Fleet(), settings(), {})) == [0, 1, 2, 3]
    nothing = Fleet(hosts=(HostSection(name="h1", gpus=()),))
    assert left(OwnGpus.of(nothing, settings(), {})) == []


def test_a_gpu_that_another_launcher_keeps_is_left_out_with_who_does():
    own = OwnGpus(kept={"GPU-1": "the launcher pid 4711 (anna) has an engine on it"})
    assert left(own) == [0, 2, 3]
    (_, gpu) = own.mark(gpus(2))
    assert gpu.left_out.startswith("the launcher pid 4711 (anna) has an engine on it")
