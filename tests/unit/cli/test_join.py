"""What `modelserver join` takes on its command line."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelserver.cli.join import SILENT_SECONDS, URL_VARIABLE, Silence, join
from modelserver.errors import ConfigurationError, StoreUnreachableError

#: No setting of the tests' own reaches a command.
NOTHING = dict.fromkeys(("MODELSERVER_FLEET", "MODELSERVER_HOST", URL_VARIABLE))


@pytest.mark.parametrize(
    ("url", "given", "told"),
    [
        ("redis://:secret@state:6379/0", "", f"put the URL into {URL_VARIABLE}"),
        ("redis://a:6379/0", "redis://:s@b:6379/0", "leave one out"),
        ("rediss://state/0?ssl_password=secret", "", "--url-file FILE"),
        ("sentinel://s/group/0?sentinel_password=secret", "", "--url-file FILE"),
        ("state:6379", "", "must be redis://"),
        ("", "", "say where the fleet's Redis is"),
    ],
)
def test_a_url_that_is_none_to_go_by_is_refused_without_its_password(
    url: str, given: str, told: str
):
    with pytest.raises(ConfigurationError, match=told) as refused:
        CliRunner().invoke(
            join,
            [url] if url else [],
            env=NOTHING | {URL_VARIABLE: given},
            catch_exceptions=False,
        )
    assert "secret" not in str(refused.value)
    assert ":s@" not in str(refused.value)


def test_a_file_that_others_read_is_refused(tmp_path: Path):
    file = tmp_path / "url"
    file.write_text("redis://:secret@127.0.0.1:1/0\n")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {file}"):
        CliRunner().invoke(
            join, ["--url-file", str(file)], env=NOTHING, catch_exceptions=False
        )


def test_a_password_in_a_file_stays_there(tmp_path: Path):
    file = tmp_path / "url"
    file.write_text("redis://:secret@127.0.0.1:1/0\n")
    file.chmod(0o600)
    done = CliRunner().invoke(
        join,
        ["--url-file", str(file)],
        env=NOTHING | {"MODELSERVER_HOME": str(tmp_path)},
    )
    assert isinstance(done.exception, StoreUnreachableError)
    (written,) = tmp_path.glob("joined/*/fleet.toml")
    assert 'url = "redis://127.0.0.1:1/0"' in written.read_text()


def test_a_launchers_silence_begins_with_its_last_report():
    silence, late = Silence(100.0), 100.0 + 10 * SILENT_SECONDS
    assert not silence.note(False, 100.0 + SILENT_SECONDS)
    assert not silence.note(True, late)
    assert not silence.note(False, late + SILENT_SECONDS)
    assert silence.note(False, late + SILENT_SECONDS + 1)


def test_a_url_with_quotes_leaves_a_fleet_file_that_can_be_read(tmp_path: Path):
    url = 'redis://127.0.0.1:1/0?db="\U0001f600'
    done = CliRunner().invoke(
        join, [url], env=NOTHING | {"MODELSERVER_HOME": str(tmp_path)}
    )
    (written,) = tmp_path.glob("joined/*/fleet.toml")
    assert tomllib.loads(written.read_text()) == {"redis": {"url": url}}
    assert isinstance(done.exception, StoreUnreachableError)
