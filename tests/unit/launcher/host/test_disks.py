"""How much room the disks have, read from this machine's own."""

import shutil
from pathlib import Path

import pytest

from launcher.host.disks import read_disks, try_writing
from modelserver.inventory import GIB, Disk


def test_each_file_system_is_told_once_and_a_folder_that_is_missing_by_its_parent(
    tmp_path: Path,
):
    (disk,) = read_disks([tmp_path / "later" / "logs", tmp_path])
    assert disk.path == str(tmp_path / "later" / "logs")
    assert disk.total == shutil.disk_usage(tmp_path).total
    assert disk.kind


def test_a_disk_is_nearly_full_below_a_share_and_a_size():
    assert Disk("/", 4 * GIB, 100 * GIB).is_short
    assert not Disk("/", 6 * GIB, 100 * GIB).is_short
    assert not Disk("/", 11 * GIB, 1000 * GIB).is_short
    assert Disk("/", 0, 64 * 2**20).is_short


def test_a_folder_that_cannot_be_written_to_is_named_with_the_reason(tmp_path: Path):
    try_writing(tmp_path / "new" / "logs")
    assert list((tmp_path / "new" / "logs").iterdir()) == []
    (tmp_path / "logs").symlink_to(tmp_path / "not-mounted")
    for folder in (tmp_path / "logs", tmp_path / "logs" / "deeper"):
        with pytest.raises(OSError, match=f"leads to {tmp_path}/not-mounted, which is"):
            try_writing(folder)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"{tmp_path}/file is no folder"):
        try_writing(tmp_path / "file")


def test_disks_of_several_hosts():
    kinds = ("nfs4", "lustre", "ext4", "")
    assert [Disk("/", 1, 1, kind).is_remote for kind in kinds] == [
        *(True, True),
        *(False, False),
    ]
