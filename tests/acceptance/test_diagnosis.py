"""Starts of real SGLang that cannot succeed are given up at once, with the remedy."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelserver.values import EngineState
from tests.acceptance.product import START_SECONDS
from tests.support.launchers import Site, open_site, section
from tests.support.processes import ValkeyProcess

pytestmark = pytest.mark.sglang

CHAT_PATH = "builtin:tiny-chat"
#: A model of a kind that nobody has made.
MADE_UP = {"architectures": ["MadeUpForCausalLM"], "model_type": "llama"}
#: One that SGLang knows.
KNOWN = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 4096,
    "max_position_embeddings": 4096,
}


def model(folder: Path, home: Path, config: dict[str, object]) -> str:
    """A model's folder with a tokenizer, a config and no weights."""
    folder.mkdir()
    for path in (home / "models" / "tiny-chat").iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps(config | SIZES))
    return str(folder)


@pytest.fixture
def site(tmp_path: Path, home: Path, valkey: ValkeyProcess) -> Iterator[Site]:
    for name in ("engines", "models"):
        (tmp_path / name).symlink_to(home / name)
    made_up = model(tmp_path / "made-up", home, MADE_UP)
    hollow = model(tmp_path / "hollow", home, KNOWN)
    (tmp_path / "empty").mkdir()
    real: dict[str, Any] = {"engine": "sglang-cpu", "command": [], "start_seconds": 180}
    more = (
        section("strange", **real, path=made_up),
        section("hollow", **real, path=hollow),
        section("empty", **real, path=str(tmp_path / "empty")),
        section("flagged", **real, path=CHAT_PATH, extra_args=["--no-such-flag"]),
    )
    with open_site(tmp_path, valkey, *more) as site:
        yield site


def test_causes_that_no_retry_heals_end_in_fatal_at_the_first_start(site: Site) -> None:
    site.launch()
    causes = {
        "strange": ("MadeUpForCausalLM", "or another model"),
        "empty": ("Unrecognized model in", "correct path"),
        "flagged": ("--no-such-flag", "correct extra_args"),
    }
    for name in (*causes, "hollow"):
        site.want(name)
    for name, (cause, remedy) in causes.items():
        engine = site.reaches(f"{name}-0", EngineState.FATAL, within=START_SECONDS)
        assert engine.incarnation == 1
        assert cause in engine.reason
        assert remedy in engine.reason
        assert engine.log in engine.reason
    # Somebody may be copying its weights.
    engine = site.reaches("hollow-0", EngineState.BACKOFF, within=START_SECONDS)
    assert "Cannot find any model weights" in engine.reason
    assert "download the model again" in engine.reason
