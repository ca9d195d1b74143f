"""A variable that names a folder where a file is wanted."""

from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.settings import load


def test_a_named_folder_is_told_from_what_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is a folder; name the file in it"):
        load({"MODELSERVER_FLEET": str(tmp_path)})
