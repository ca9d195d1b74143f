"""Arguments of containers that would take an engine out of the launcher's hands."""

import shutil
import subprocess
from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.fleet.container_arguments import (
    REFUSED_OPTIONS,
    find_container_problems,
    is_privileged,
)
from modelserver.fleet.file import read_fleet

DOCKER = shutil.which("docker")


def refused(*words: str) -> list[str]:
    return list(find_container_problems(words))


@pytest.mark.parametrize("option", REFUSED_OPTIONS)
def test_what_breaks_supervision_is_refused_by_name(option: str):
    for words in ((option, "x"), (f"{option}=x",)):
        said = refused("--shm-size", "8g", *words)
        assert said[0].startswith(f"container_args must not hold {option}: ")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("-p", "8000:8000"), "-p"),
        (("-p8000:8000",), "-p"),
        (("-p=8000:8000",), "-p"),
        (("-itd",), "-t"),
        (("-dp", "80:80"), "-d"),
        (("-P=true",), "-P"),
        (("--rm=false",), "--rm"),
        (("--network=bridge",), "--network"),
        (("-e", "CUDA_VISIBLE_DEVICES=0"), "-e CUDA_VISIBLE_DEVICES=0"),
        (("-eNVIDIA_VISIBLE_DEVICES=all",), "-e NVIDIA_VISIBLE_DEVICES=all"),
        (("--env=CUDA_VISIBLE_DEVICES",), "--env CUDA_VISIBLE_DEVICES"),
        (
            ("--env", "MODELSERVER_ENGINE_MARK=x"),
            "--env MODELSERVER_ENGINE_MARK=x",
        ),
        (("--unsetenv", "CUDA_DEVICE_ORDER"), "--unsetenv CUDA_DEVICE_ORDER"),
        (("-l", "modelserver.run=/other"), "-l modelserver.run=/other"),
        (("--device", "nvidia.com/gpu=all"), "--device nvidia.com/gpu=all"),
        (("--device=/dev/nvidia0",), "--device /dev/nvidia0"),
    ],
)
def test_so_it_is_however_it_is_written(words: tuple[str, ...], found: str):
    assert refused(*words)[0].startswith(f"container_args must not hold {found}: ")


@pytest.mark.parametrize(
    "words",
    [
        ("--shm-size", "16g", "--volume", "/A:/A", "-v/B:/B:ro"),
        ("--ulimit", "nproc=32768:32768", "--pids-limit", "-1", "--memory-swap=-1"),
        ("--device", "/dev/infiniband", "--cap-add", "SYS_PTRACE"),
        ("--user", "1000:1000", "-u=1000", "--userns", "keep-id", "--privileged"),
        ("-e", "NCCL_DEBUG=INFO", "--env", "-p", "--label", "--name", "--env-file=/x"),
        ("-w", "/work", "-h", "box", "-m", "8g", "-c", "512", "-i", "-q"),
        ("--init", "--read-only", "--ipc", "private", "--runtime=nvidia"),
    ],
)
def test_others_are_taken(words: tuple[str, ...]):
    assert refused(*words) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--shm-size 16g",),
        ("another/image:latest",),
        ("--privileged", "true"),
        ("--shm-size", "16g", "8g"),
        ("--",),
        ("-",),
        ("",),
    ],
)
def test_what_would_be_taken_for_the_image_is_refused(words: tuple[str, ...]):
    (problem,) = refused(*words)
    assert "each option and each value is a text of its own" in problem


def test_a_fleet_file_names_the_model(tmp_path: Path):
    path = tmp_path / "fleet.toml"
    path.write_text(
        '[[models]]\nname = "m"\npath = "Q/m"\ngpus = 1\nimage = "sgl:1"\n'
        'container_args = ["--network", "bridge"]\n'
    )
    with pytest.raises(ConfigurationError, match=r"models\[0\]: container_args must"):
        read_fleet(path)


@pytest.mark.parametrize("words", [[], ["--privileged=0"], ["--label", "--privileged"]])
def test_not_every_container_is_privileged(words: list[str]):
    assert not is_privileged(words)
    assert is_privileged([*words, "--privileged=true"])


@pytest.mark.skipif(DOCKER is None, reason="no docker to read command lines")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        # It comes to ask for its daemon where it takes all words.
        (["-itd", "-p8:8", "-P", "-q", "-h=x", "-eX=1", "-lx=y", "-m8g"], ""),
        (["--netw", "bridge"], "unknown flag: --netw"),
        (["--shm-size 16g"], "unknown flag: --shm-size 16g"),
        (["--privileged", "true"], ""),
    ],
)
def test_docker_reads_its_command_line_so(words: list[str], said: str):
    done = subprocess.run(
        [str(DOCKER), "--host", "unix:///nowhere", "run", *words, "image"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said or "nowhere") in done.stderr
