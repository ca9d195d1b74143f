"""The exact commands by which engines are run in containers."""

import csv
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.engine.container import (
    ContainerSpec,
    Mount,
    container_launch,
    in_container,
    with_absolute_path,
)
from launcher.engine_types import Launch, Place, adapter
from launcher.environments import starter
from launcher.host import process
from launcher.host.containers import ContainerRuntime, Containers, container_name
from modelserver.values import Kind, ModelSpec

DOCKER = ContainerRuntime("/usr/bin/docker")
PODMAN = ContainerRuntime("/usr/bin/podman", is_podman=True)
LAUNCH = Launch(
    ("vllm", "serve", "Qwen/Qwen3-8B", "--port", "30001"),
    {"VLLM_API_KEY": "sesame", "PYTHONPATH": "", "LD_PRELOAD": "/x.so"},
)
BOX = ContainerSpec(
    DOCKER,
    "vllm/vllm-openai:v0.33.0",
    "modelserver-abc",
    {"modelserver.run": "/run/a", "modelserver.engine": "m-0"},
    gpus=("GPU-b", "GPU-d"),
    mounts=(Mount(Path("/cache"), writable=True), Mount(Path("/models/m"))),
    arguments=("--shm-size", "16g"),
)
MODEL = ModelSpec("m", Kind.COMPLETION, "Q/m", "sglang", gpus=1, image="sgl:1")


def test_docker_command() -> None:
    assert container_launch(LAUNCH, BOX, more=("THE_MARK",)).argv == (
        *("/usr/bin/docker", "run", "--rm", "--name", "modelserver-abc"),
        *("--label", "modelserver.run=/run/a", "--label", "modelserver.engine=m-0"),
        *("--pull", "never", "--network", "host", "--ipc", "host"),
        *("--ulimit", "memlock=-1:-1", "--ulimit", "stack=67108864:67108864"),
        *("--ulimit", "nofile=1048576:1048576", "--security-opt", "label=disable"),
        *("--log-driver", "none", "--gpus", '"device=GPU-b,GPU-d"'),
        *("--mount", 'type=bind,"source=/cache","target=/cache"'),
        *("--mount", 'type=bind,"source=/models/m","target=/models/m",readonly'),
        *("--env", "ALL_PROXY", "--env", "HF_ENDPOINT"),
        *("--env", "HF_HUB_OFFLINE", "--env", "HF_TOKEN"),
        *("--env", "HTTPS_PROXY", "--env", "HTTP_PROXY"),
        *("--env", "LD_PRELOAD=/x.so", "--env", "NO_PROXY", "--env", "THE_MARK"),
        *("--env", "VLLM_API_KEY", "--env", "all_proxy"),
        *("--env", "http_proxy", "--env", "https_proxy"),
        *("--env", "no_proxy", "--shm-size", "16g", "--entrypoint", "vllm"),
        *("vllm/vllm-openai:v0.33.0", "serve", "Qwen/Qwen3-8B", "--port", "30001"),
    )


def test_values_go_by_the_environment_but_for_those_that_would_lead_docker_astray() -> (
    None
):
    launch = container_launch(LAUNCH, BOX)
    assert launch.environment == {"VLLM_API_KEY": "sesame"}
    assert "sesame" not in " ".join(launch.argv)


def test_podman_names_gpus_by_cdi_and_asks_for_no_more_than_it_may_give() -> None:
    limits = {"memlock": 8192, "stack": -1, "nofile": 1024}
    argv = container_launch(LAUNCH, replace(BOX, runtime=PODMAN, limits=limits)).argv
    pairs = list(itertools.pairwise(argv))
    assert [value for name, value in pairs if name == "--device"] == [
        "nvidia.com/gpu=GPU-b",
        "nvidia.com/gpu=GPU-d",
    ]
    assert [value for name, value in pairs if name == "--ulimit"] == [
        "memlock=8192:8192",
        "stack=67108864:67108864",
        "nofile=1024:1024",
    ]
    assert "--gpus" not in argv


def test_engine_without_gpus_gets_none() -> None:
    argv = container_launch(LAUNCH, replace(BOX, gpus=())).argv
    assert "--gpus" not in argv


def test_folder_with_a_comma_or_a_quote_stays_one_folder() -> None:
    text = str(Mount(Path('/models/a,b "c"'), writable=True))
    (fields,) = csv.reader([text])
    assert fields == [
        "type=bind",
        'source=/models/a,b "c"',
        'target=/models/a,b "c"',
    ]


def mounts(launch: Launch) -> list[str]:
    words = zip(launch.argv, launch.argv[1:], strict=False)
    return [value for name, value in words if name == "--mount"]


def sglang(model: ModelSpec, environment: Mapping[str, str]) -> Launch:
    launch = adapter("sglang").launch(
        with_absolute_path(model), Place(1, (0,)), Path("/home/ms")
    )
    launch = replace(launch, environment={**launch.environment, **environment})
    return in_container(launch, with_absolute_path(model), replace(BOX, mounts=()))


def test_weights_are_mounted_to_be_read_and_the_cache_to_be_written(
    tmp_path: Path,
) -> None:
    weights, cache = tmp_path / "weights", tmp_path / "cache"
    weights.mkdir()
    launch = sglang(replace(MODEL, path=str(weights)), {"HF_HOME": str(cache)})
    assert cache.is_dir()
    assert mounts(launch) == [
        str(Mount(cache, writable=True)),
        str(Mount(starter("sglang"))),
        str(Mount(weights)),
    ]
    assert launch.environment["HF_HOME"] == str(cache)
    assert launch.argv[launch.argv.index("--entrypoint") + 1] == "python3"
    assert str(weights) in launch.argv


def test_gpus_are_counted_from_0_in_a_container_which_has_no_others() -> None:
    def seen(visible: str, *arguments: str) -> str:
        launch = Launch(("sglang",), {"CUDA_VISIBLE_DEVICES": visible})
        box = replace(BOX, mounts=(), arguments=arguments)
        environment = in_container(launch, MODEL, box).environment
        return environment["CUDA_VISIBLE_DEVICES"]

    assert seen("1,3") == "0,1"
    assert seen("1,3", "--privileged") == "1,3"
    assert seen("GPU-b,GPU-d") == "GPU-b,GPU-d"


def test_id_of_a_model_is_no_folder(tmp_path: Path) -> None:
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    launch = sglang(MODEL, environment)
    assert mounts(launch)[:2] == [
        str(Mount(tmp_path, writable=True)),
        str(Mount(tmp_path / "hub", writable=True)),
    ]
    assert len(mounts(launch)) == 3
    assert "Q/m" in launch.argv


def test_every_process_of_a_container_carries_the_mark(tmp_path: Path) -> None:
    argv = sglang(MODEL, {"HF_HOME": str(tmp_path)}).argv
    for name in (process.MARK, *process.ENGINE_VARIABLES):
        assert argv[argv.index(name) - 1] == "--env"


@pytest.mark.parametrize(
    ("engine", "program"),
    [
        ("vllm", "/opt/v/bin/vllm"),
        ("vllm-cpu", "/opt/v/bin/python"),
        ("sglang-cpu", "/opt/v/bin/python"),
    ],
)
def test_interpreter_is_one_in_the_image(engine: str, program: str) -> None:
    model = replace(MODEL, engine=engine, interpreter="/opt/v/bin/python")
    launch = adapter(engine).launch(model, Place(1, (0,)), Path("/home/ms"))
    assert launch.argv[0] == program
    # Stand-ins would hide the packages that an image has.
    assert not launch.environment.get("PYTHONPATH")


def test_name_of_a_container_is_known_before_there_is_one() -> None:
    unborn = process.new_identity("/usr/bin/docker")
    assert (
        unborn.container == container_name(unborn.mark) == f"modelserver-{unborn.mark}"
    )
    assert process.new_identity().container == ""


def test_programs_that_do_not_work_are_told_with_the_remedy(tmp_path: Path) -> None:
    broken = tmp_path / "docker"
    broken.write_text("#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit 1\n")
    broken.chmod(0o755)
    said = Containers(str(broken), "").find()
    assert isinstance(said, str)
    assert f"{broken} does not work: Cannot connect to the daemon" in said
    assert "MODELSERVER_CONTAINER_PROGRAM" in said
