"""The keys of engines: who can read them, and that a new one is found."""

import stat
from pathlib import Path

from modelserver.keyring import Keyring

ADDRESS = "127.0.0.1:30000"


def test_a_key_can_be_read_by_its_owner_only(tmp_path: Path):
    folder = tmp_path / "run" / "keys"
    Keyring(folder).renew(ADDRESS)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_another_program_finds_the_key_and_each_start_has_its_own(tmp_path: Path):
    launcher, worker = Keyring(tmp_path), Keyring(tmp_path)
    first = launcher.renew(ADDRESS)
    assert worker.key(ADDRESS) == first
    second = launcher.renew(ADDRESS)
    assert second != first
    assert worker.key(ADDRESS) == first, "a file is not read for each request"
    assert worker.reread(ADDRESS) == second == worker.key(ADDRESS)


def test_engines_do_not_share_a_key(tmp_path: Path):
    keys = Keyring(tmp_path)
    assert keys.renew(ADDRESS) != keys.renew("127.0.0.1:30001")


def test_an_engine_without_a_key_has_an_empty_one(tmp_path: Path):
    keys = Keyring(tmp_path)
    assert keys.key(ADDRESS) == ""
    keys.renew(ADDRESS)
    keys.forget(ADDRESS)
    keys.forget(ADDRESS)
    assert keys.key(ADDRESS) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_strange_address_stays_in_the_folder(tmp_path: Path):
    Keyring(tmp_path / "keys").write("../evil/host:1", "x")
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [
        "..%2Fevil%2Fhost:1"
    ]
