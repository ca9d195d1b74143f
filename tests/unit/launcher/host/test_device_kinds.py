"""What is said of devices that are not supported."""

from pathlib import Path

from launcher.host.device_kinds import REMEDY, describe_others


def device(folder: Path, number: int, kind: str, vendor: str) -> None:
    path = folder / str(number)
    path.mkdir()
    (path / "class").write_text(f"{kind}\n")
    (path / "vendor").write_text(f"{vendor}\n")


def test_gpus_of_others_are_named_with_what_can_be_done(tmp_path: Path):
    device(tmp_path, 0, "0x030000", "0x1a03")
    device(tmp_path, 1, "0x020000", "0x8086")
    assert describe_others(tmp_path) == ""
    device(tmp_path, 2, "0x120000", "0x1002")
    device(tmp_path, 3, "0x038000", "0x8086")
    device(tmp_path, 4, "0x120000", "0x1002")
    said = f"GPUs of AMD and Intel are not supported; {REMEDY}"
    assert describe_others(tmp_path) == said
    (tmp_path / "5").mkdir()
    assert describe_others(tmp_path) == said
    assert describe_others(tmp_path / "none") == ""
