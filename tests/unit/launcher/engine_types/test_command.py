"""Commands of the fleet file, engines of somebody else, and models that are missing."""

import pytest

from launcher.engine_types import LOOPBACK, Launch, Place, adapter
from modelserver.errors import ConfigurationError
from modelserver.values import Kind, ModelSpec
from tests.support.launches import HOME


def command(*words: str, gpus: tuple[int, ...] = ()) -> Launch:
    model = ModelSpec(
        name="org/m",
        kind=Kind.COMPLETION,
        path="/models/m",
        engine="command",
        command=words,
        environment={"A": "b"},
    )
    return adapter("command").launch(model, Place(8001, gpus), HOME)


def test_command_gets_its_placeholders_filled() -> None:
    launch = command("srv", "{path}", "--at={host}:{port}", "--name", "{model}", "{{}}")
    assert launch.argv == (
        "srv",
        "/models/m",
        f"--at={LOOPBACK}:8001",
        "--name",
        "org/m",
        "{}",
    )
    assert launch.environment == {"A": "b"}


def test_command_with_gpus_sees_only_those() -> None:
    launch = command("srv", "--on={gpus}", "--number={index}", gpus=(2, 5))
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "2,5"
    assert launch.argv[1:] == ("--on=2,5", "--number=0")


@pytest.mark.parametrize("word", ["{prot}", "{}", "{0}", "{port", "port}", "{port.x}"])
def test_bad_placeholder_is_named_with_those_that_there_are(word: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        command("srv", word)
    text = str(caught.value)
    assert word in text
    assert "{port}, {host}, {model}, {path}, {index}, {gpus}" in text
    assert 'model "org/m"' in text


def test_external_engine_has_no_command() -> None:
    model = ModelSpec(name="m", kind=Kind.COMPLETION, path="", engine="external")
    external = adapter("external")
    external.prepare(model, HOME)
    assert external.launch(model, Place(0), HOME) == Launch(())
    assert not external.starts_process


def test_model_that_the_fleet_file_lacks_says_so() -> None:
    model = ModelSpec(name="m", kind=Kind.COMPLETION, path="", engine="absent")
    with pytest.raises(ConfigurationError, match="modelserver apply"):
        adapter("absent").prepare(model, HOME)
    assert adapter("absent").launch(model, Place(0), HOME).argv == ()
