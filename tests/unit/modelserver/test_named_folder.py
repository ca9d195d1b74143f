"""Variables that name a folder: where a file is wanted, and one of nobody."""

from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.settings import load


def test_a_named_folder_is_told_from_what_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is a folder; name the file in it"):
        load({"MODELSERVER_FLEET": str(tmp_path)})


@pytest.mark.parametrize("name", ["MODELSERVER_HOME", "MODELSERVER_ENGINES_HOME"])
def test_a_folder_of_an_unknown_user_is_named_with_its_variable(
    tmp_path: Path, name: str
):
    with pytest.raises(ConfigurationError, match=f"{name} names ~no-such-user/x, and"):
        load({"MODELSERVER_HOME": "/x", name: "~no-such-user/x"}, cwd=tmp_path)
