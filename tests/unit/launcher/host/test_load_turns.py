"""Starts that load the same files one after another."""

from pathlib import Path

from launcher.host.load_turns import LoadTurns


def test_the_same_files_are_loaded_by_one_engine_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "m")
    turns = LoadTurns()
    assert turns.take("a-0", tmp_path / "m") == ""
    assert turns.take("a-0", tmp_path / "m") == ""
    assert turns.take("b-0", (tmp_path / "link").resolve()) == "a-0"
    assert turns.take("c-0", tmp_path / "other") == ""
    turns.end("a-0")
    assert turns.take("b-0", (tmp_path / "link").resolve()) == ""
