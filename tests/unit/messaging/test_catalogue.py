"""What a client may ask for, and what it is told otherwise."""

import json
import subprocess
import sys

import pytest

from modelserver.errors import UnknownModelError
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import DefaultsSection, ModelSection
from modelserver.messaging.catalogue import (
    Catalogue,
    CatalogueEntry,
    Down,
    catalogue,
    read_down,
)
from modelserver.values import Kind

FLEET = Fleet(
    models=(
        ModelSection(
            name="qwen3-8b",
            path="/q",
            engine="sglang-cpu",
            context_length=4096,
            fallback="llama-8b",
            sampling={"temperature": 0.6},
        ),
        ModelSection(name="llama-8b", path="/l", engine="sglang-cpu"),
        ModelSection(name="e5", kind=Kind.EMBEDDING, path="/e", engine="sglang-cpu"),
    )
)


def read(fleet: Fleet) -> Catalogue:
    return Catalogue.read(json.loads(json.dumps(catalogue(fleet))))


def message(models: Catalogue, kind: Kind, model: str | None = None) -> str:
    with pytest.raises(UnknownModelError) as raised:
        models.pick(kind, model)
    return str(raised.value)


def test_a_catalogue_comes_back_from_json_as_it_was():
    models = read(FLEET)
    assert models.entry("qwen3-8b") == CatalogueEntry(
        "qwen3-8b", Kind.COMPLETION, 4096, "llama-8b", {"temperature": 0.6}, path="/q"
    )
    assert models.defaults["result_expires_seconds"] == 86_400


def test_keys_of_a_newer_version_are_ignored():
    values = {"models": [{"name": "m", "kind": "completion", "new": 1}], "defaults": {}}
    assert Catalogue.read(values).pick(Kind.COMPLETION) == "m"


def test_models_of_a_newer_versions_kind_are_left_out():
    values = json.loads(json.dumps(catalogue(FLEET)))
    values["models"].append({**values["models"][0], "name": "r", "kind": "rerank"})
    assert Catalogue.read(values) == read(FLEET)


@pytest.mark.parametrize("odd", ['{"m": 7}', "[]", "{", '{"m": {"standing": "down"}}'])
def test_an_outage_that_cannot_be_read_keeps_no_request(odd: str):
    assert read_down(odd) in ({}, {"m": Down("m")})
    newer = {"standing": "down", "then": "park", "reason": "r", "since": 1.0}
    down = read_down(json.dumps({"m": newer, "n": {**newer, "then": "fail", "x": 1}}))
    assert down == {"n": Down("n", "fail", reason="r", since=1.0)}


def test_a_model_named_is_the_model_taken():
    assert read(FLEET).pick(Kind.COMPLETION, "llama-8b") == "llama-8b"


def test_the_only_model_of_a_kind_needs_no_name():
    assert read(FLEET).pick(Kind.EMBEDDING) == "e5"


def test_the_default_is_taken_where_several_would_do():
    fleet = FLEET.model_copy(
        update={"defaults": DefaultsSection(completion="qwen3-8b")}
    )
    assert read(fleet).pick(Kind.COMPLETION) == "qwen3-8b"


def test_several_models_and_no_default_say_how_to_choose():
    assert message(read(FLEET), Kind.COMPLETION) == (
        "the fleet has several completion models and none is the default: llama-8b, "
        'qwen3-8b; say model="llama-8b" or set defaults.completion in the fleet file'
    )


def test_no_model_of_a_kind_says_how_to_add_one():
    assert message(Catalogue(), Kind.EMBEDDING) == (
        "the fleet has no embedding model; add one to the fleet file: "
        '[[models]] with kind = "embedding"'
    )


def test_a_misspelt_model_names_the_nearest_and_all():
    assert message(read(FLEET), Kind.COMPLETION, "qwen-8b") == (
        'the fleet has no model "qwen-8b"; did you mean "qwen3-8b"? '
        "completion models: llama-8b, qwen3-8b"
    )


def test_a_model_unlike_any_names_all():
    assert message(read(FLEET), Kind.EMBEDDING, "zzz") == (
        'the fleet has no model "zzz"; embedding models: e5'
    )


def test_a_model_of_the_other_kind_is_named_as_such():
    assert message(read(FLEET), Kind.COMPLETION, "e5") == (
        'model "e5" is for embedding, not for completion; '
        "completion models: llama-8b, qwen3-8b"
    )


def test_reading_a_catalogue_loads_no_pydantic():
    module = "modelserver.messaging.catalogue"
    code = f"import sys, {module}; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_adapter_is_asked_for_by_name_on_its_base_models_queue() -> None:
    adapters = [{"name": "style", "path": "org/style"}]
    base = {"name": "chat", "kind": "completion", "path": "org/m", "adapters": adapters}
    models = Catalogue.read({"models": [base], "defaults": {}})
    assert models.pick(Kind.COMPLETION) == "chat"
    assert models.pick(Kind.COMPLETION, "style") == "style"
    assert [models.queue(name) for name in ("style", "chat")] == ["chat", "chat"]
    style = models.entry("style")
    assert style is not None
    # What is kept of the base's answers is not the adapter's.
    assert style.path == "org/m org/style"
