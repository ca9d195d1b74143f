"""OpenAI's API in front of real engines: their own answers, and OpenAI's own client."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from tests.acceptance.matrix import MATRIX, ask_both, check_same, lasting
from tests.acceptance.product import EMBED, PATIENCE, Product

pytestmark = pytest.mark.sglang


@pytest.mark.parametrize(("path", "asked", "stream"), MATRIX)
def test_an_answer_is_the_engines_own(
    fleet: Product, path: str, asked: dict[str, Any], stream: bool
):
    check_same(fleet, "tiny-chat", path, asked, stream)


def test_vectors_are_the_engines_own(fleet: Product):
    body = {"model": "tiny-embed", "input": ["one", "two three"]}
    [(_, expected), (status, told)] = ask_both(fleet, EMBED, "embeddings", body)
    assert status == 200
    for ours, its in zip(told.pop("data"), expected.pop("data"), strict=True):
        assert ours.pop("embedding") == pytest.approx(its.pop("embedding"), abs=1e-6)
        assert ours == its
    # The engine's own name for it is the folder of its weights.
    assert lasting(told) == lasting(expected) | {"model": "tiny-embed"}


@pytest.fixture(scope="module")
def python_with_openai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment of its own, with OpenAI's client."""
    folder = tmp_path_factory.mktemp("openai")
    uv, python = find_uv_bin(), folder / "bin" / "python"
    subprocess.run(
        [uv, "venv", "--quiet", "--seed", "--python", sys.executable, folder],
        check=True,
    )
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "openai>=2"], check=True)
    return python


def test_openais_own_client_gets_what_it_asks_for(
    fleet: Product, python_with_openai: Path
):
    program = Path(__file__).with_name("openai_program.py")
    done = subprocess.run(
        [python_with_openai, program, fleet.api_url, "tiny-chat", "tiny-embed"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"tiny-chat", "tiny-embed"} <= set(told["models"])
    assert told["model"] == "tiny-chat"
    assert told["chat"] == told["streamed"]
    assert told["completion"][0] == told["awaited"]
    assert told["completion tokens"] == 24
    assert told["streamed tokens"] == 12
    # Weights by chance never come to its end.
    assert told["shaped"].startswith("{")
    assert told["vectors"][0] == told["vectors"][1] > 0
    assert told["same vector"] < 1e-6
    whole, streamed, first, last = told["responded"]
    assert whole == streamed != ""
    assert (first, last) == ("response.created", "response.incomplete")
    texts = {f"row-{number}": told["chat"] for number in range(3)}
    assert told["batch"] == ["completed", 3, texts, True]
    assert told["refused"] == [
        ["NotFoundError", "model_not_found", "model"],
        ["BadRequestError", None, "temperature"],
        ["BadRequestError", "context_length_exceeded", "max_tokens"],
        ["BadRequestError", None, "messages"],
    ]
