"""What a model's own files say of it, wherever they are."""

import json
import os
from pathlib import Path

import pytest

from launcher.engine_types.model_config import vocabulary
from launcher.startup_log.weights import weights_of


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"vocab_size": 4096}, 4096),
        ({"text_config": {"vocab_size": 7}}, 7),
        ({"vocab_size": None}, 0),
        ([], 0),
    ],
)
def test_the_vocabulary_is_read_from_a_models_folder(tmp_path: Path, config, size: int):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert vocabulary(weights_of(str(tmp_path), {})) == size


@pytest.mark.parametrize("path", ["", "nobody/nothing"])
def test_a_model_without_files_tells_nothing(tmp_path: Path, path: str):
    assert vocabulary(weights_of(path, {"HF_HUB_CACHE": str(tmp_path)})) == 0


def test_the_newest_snapshot_of_a_download_counts(tmp_path: Path):
    for age, size in enumerate((5, 9)):
        snapshot = tmp_path / "models--a--b" / "snapshots" / str(size)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"vocab_size": size}))
        os.utime(snapshot, (age, age))
    assert vocabulary(weights_of("a/b", {"HF_HUB_CACHE": str(tmp_path)})) == 9
