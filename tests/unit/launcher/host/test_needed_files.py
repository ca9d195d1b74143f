"""What an engine needs of its host's files, and what is said where it is not there."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from launcher.environments.paths import environment_path, hub_folder, interpreter
from launcher.host.needed_files import NeededFiles, find_missing
from launcher.startup_log.weights import Weights
from modelserver.adapters import LoraAdapter
from modelserver.errors import EngineEnvironmentError
from modelserver.missing_files import describe_missing
from modelserver.values import Kind, ModelSpec


def model(path: str, **more: Any) -> ModelSpec:
    more = {"engine": "sglang", "interpreter": sys.executable, **more}
    return ModelSpec("m", Kind.COMPLETION, path, **more)


def test_what_is_there_or_of_a_hub_is_not_missed(tmp_path: Path):
    for path in (str(tmp_path), "Qwen/Qwen3-8B", "builtin:tiny-chat", ""):
        assert find_missing(model(path), tmp_path) == ""
    boxed = model("/in/the/image", image="x:1", interpreter="/opt/python")
    assert find_missing(boxed, tmp_path) == ""
    told = model("/a/note", engine="command", command=("serve", "{port}"))
    assert find_missing(told, tmp_path) == ""
    assert find_missing(model("/a", engine="external"), tmp_path) == ""


def test_a_folder_below_an_empty_one_waits_for_a_mount(tmp_path: Path):
    (tmp_path / "nfs").mkdir()
    path = f"{tmp_path}/nfs/models/m"
    said = find_missing(model(path), tmp_path)
    assert said.startswith(f"path {path} is not there: {tmp_path}/nfs is empty")
    assert "may be mounted late; else correct path of model" in said
    (tmp_path / "nfs" / "models" / "m").mkdir(parents=True)
    assert find_missing(model(path), tmp_path) == ""


def test_a_misspelt_path_is_told_with_what_is_near(tmp_path: Path):
    (tmp_path / "llama").mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert describe_missing(f"{tmp_path}/lama/1") == (
        f'{tmp_path}/lama/1 is not there: {tmp_path} has no "lama"; did you mean '
        '"llama"?'
    )
    said = describe_missing(f"{tmp_path}/broken")
    assert said.endswith(f"leads to {tmp_path}/nowhere, which is not there")
    said = describe_missing(f"{tmp_path}/broken/m")
    assert said.endswith(
        f"{tmp_path}/broken leads to {tmp_path}/nowhere, which is not there"
    )
    (tmp_path / "file").touch()
    said = describe_missing(f"{tmp_path}/file/m")
    assert said.endswith(f"{tmp_path}/file is no folder")


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("path", {}),
        ("interpreter", {"path": "Q/m", "interpreter": "~no-such-user/python"}),
    ],
)
def test_the_home_of_an_unknown_user_is_missed_as_a_file_is(
    tmp_path: Path, key: str, more: dict[str, Any]
):
    named = model(**{"path": "~no-such-user/m", **more})
    said = find_missing(named, tmp_path)
    assert said.startswith(f"{key} ~no-such-user/")
    assert "is not there: this host has no user no-such-user;" in said
    # What reads files that may be there finds none, and raises nothing.
    assert Weights(named.path).folders() == []
    hub_folder({"HF_HOME": "~no-such-user/cache"})


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("interpreter", {"interpreter": "/not/there/python"}),
        ("path of adapter a", {"adapters": (LoraAdapter("a", "/not/there/a"),)}),
        ("command", {"engine": "command", "command": ("/not/there/serve", "{port}")}),
    ],
)
def test_each_file_is_named_by_its_key(tmp_path: Path, key: str, more: dict[str, Any]):
    said = find_missing(model(str(tmp_path), **more), tmp_path)
    assert said.startswith(f"{key} /not/there")


def test_an_environment_may_come_with_its_disk_or_its_installation(tmp_path: Path):
    """One that nobody installs on a disk that is there does not."""
    needs, home = model("Q/m", interpreter=""), tmp_path / "home"
    for _ in range(2):  # Neither there nor, as a mount point, filled.
        assert "may not be mounted yet" in find_missing(needs, home)
        home.mkdir(exist_ok=True)
    (home / "engines").mkdir()
    assert find_missing(needs, home) == ""
    with pytest.raises(EngineEnvironmentError, match="does not exist") as raised:
        interpreter("sglang", home)
    assert not raised.value.may_come
    environment_path("sglang", home).mkdir()
    assert "has no working interpreter" in find_missing(needs, home)


def test_a_fault_of_a_look_is_no_disk_that_hangs(tmp_path: Path):
    def fails() -> str:
        raise ValueError("a fault")

    files = NeededFiles(tmp_path, look_seconds=60)
    with pytest.raises(ValueError, match="a fault"):
        asyncio.run(files.look("m", fails))


def test_a_disk_that_hangs_holds_nobody_else_up(tmp_path: Path):
    answers = threading.Event()

    def hangs() -> str:
        answers.wait()
        return "gone"

    async def look() -> None:
        files = NeededFiles(tmp_path, look_seconds=0.05)
        before = set(threading.enumerate())
        for _ in range(5):
            assert "does not answer" in await files.look("m", hangs)
        assert len(set(threading.enumerate()) - before) == 1
        assert await files.look("other", lambda: "") == ""
        answers.set()
        assert await files.look("m", hangs) == "gone"
        looks = (files.look("m", lambda: "") for _ in "abc")
        assert await asyncio.gather(*looks) == ["", "", ""]

    asyncio.run(look())
