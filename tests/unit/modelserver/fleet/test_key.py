"""Which fleets a host obeys."""

import stat
from pathlib import Path

import pytest

from modelserver.errors import ConfigurationError
from modelserver.fleet.key import KEY_FILE, SIGNATURE, FleetKey
from modelserver.settings import load

VALUES = {"version": 3, "by": "ada@h1", "models": [{"command": ["serve"]}]}
KEY, OTHER = "k" * 32, "o" * 32


def key(folder: Path, given: str = KEY) -> FleetKey:
    return FleetKey(folder, "ms:", given)


def signed(signer: FleetKey, **changed: object) -> dict[str, object]:
    values = VALUES | changed
    return values | {SIGNATURE: signer.sign(values)}


def test_what_is_signed_with_this_hosts_key_is_obeyed(tmp_path: Path):
    assert key(tmp_path).find_refusal(signed(key(tmp_path))) == ""


def test_one_changed_word_of_it_is_refused(tmp_path: Path):
    forged = signed(key(tmp_path)) | {"models": [{"command": ["rm"]}]}
    assert "is not signed with the key" in key(tmp_path).find_refusal(forged)


@pytest.mark.parametrize(
    ("fleet", "given", "said"),
    [
        (VALUES, KEY, "is not signed, and this host obeys only"),
        (signed(FleetKey(Path(), "ms:", OTHER)), KEY, "is not signed with the key"),
        (signed(FleetKey(Path(), "x:", KEY)), KEY, "is not signed with the key"),
        (VALUES | {SIGNATURE: None}, KEY, "is not signed, and"),
        (VALUES | {SIGNATURE: "é"}, KEY, "is not signed with the key"),
        (signed(FleetKey(Path(), "ms:", KEY)), "", "this host has no key; copy"),
        (VALUES, "", ""),
    ],
)
def test_a_refusal_names_the_fact_and_the_remedy(
    tmp_path: Path, fleet: dict[str, object], given: str, said: str
):
    refusal = key(tmp_path, given).find_refusal(fleet)
    assert said in refusal
    assert bool(refusal) == bool(said)
    assert not said or "modelserver apply" in refusal or KEY_FILE in refusal


def test_an_older_fleet_is_refused_though_it_is_signed(tmp_path: Path):
    ours = key(tmp_path)
    ours.note_version(7)
    ours.note_version(5)
    assert "older than version 7" in ours.find_refusal(signed(ours))
    assert ours.find_refusal(signed(ours, version=7)) == ""


def test_a_host_without_a_key_notes_nothing(tmp_path: Path):
    key(tmp_path, "").note_version(7)
    assert key(tmp_path).last_version() == 0


def test_a_key_is_made_once_for_this_user_only(tmp_path: Path):
    ours = key(tmp_path / "run", "")
    assert ours.read() == ""
    ours.make()
    made = ours.read()
    ours.make()
    assert (ours.read(), len(made)) == (made, 64)
    assert stat.S_IMODE(ours.file.stat().st_mode) == 0o600
    assert [path.name for path in ours.folder.iterdir()] == [KEY_FILE]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path):
    ours = key(tmp_path, "")
    ours.make()
    ours.file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        ours.read()


def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="MODELSERVER_FLEET_KEY has 6 char"):
        key(tmp_path, "sesame").read()


def test_the_environment_gives_the_key_and_no_text_shows_it(tmp_path: Path):
    settings = load({"MODELSERVER_FLEET_KEY": KEY, "HOME": "/x"}, tmp_path)
    assert settings.fleet_key.read() == KEY
    assert KEY not in f"{settings} {settings.fleet_key}"
