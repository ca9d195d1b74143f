"""Where the password comes from."""

from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.page.password import find_password
from modelserver.settings import Settings, load


def settings(folder: Path, **more: str) -> Settings:
    return load({"MODELSERVER_HOME": str(folder / "home"), **more}, folder)


def test_a_password_is_made_once(tmp_path: Path):
    first, second = find_password(settings(tmp_path)), find_password(settings(tmp_path))
    assert first.text == second.text
    assert (first.is_new, second.is_new) == (True, False)
    assert first.text not in repr(first)
    assert [each.name for each in (tmp_path / "home").iterdir()] == ["password"]


def test_the_environment_comes_first(tmp_path: Path):
    given = settings(tmp_path, MODELSERVER_PASSWORD="from the environment")
    assert find_password(given).text == "from the environment"
    assert "from the environment" not in repr(given)
    (tmp_path / "secret").write_text("from a file\n")
    named = settings(tmp_path, MODELSERVER_PASSWORD_FILE="secret")
    assert find_password(named).text == "from a file"


@pytest.mark.parametrize(
    "content", [b"", b"short\n", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"]
)
def test_a_file_without_a_proper_password_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigurationError, match="secret"):
        find_password(settings(tmp_path, MODELSERVER_PASSWORD_FILE="secret"))
    with pytest.raises(ConfigurationError, match="none-there"):
        find_password(settings(tmp_path, MODELSERVER_PASSWORD_FILE="none-there"))
