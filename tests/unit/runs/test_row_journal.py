"""What a run of rollouts keeps from one session to the next."""

import shutil
from pathlib import Path

import pytest

from modelserver.errors import BatchFileError
from modelserver.runs.row_journal import ClaimedRow, OldCall, RowJournal

A, B = b"a" * 16, b"b" * 16
#: Redis' scripts count exactly below that.
HIGHEST = 1 << 53


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.sqlite"


def test_rows_are_known_by_what_they_say(path: Path):
    journal = RowJournal(path)
    first, second, other = (journal.claim(digest).id for digest in (A, A, B))
    assert len({first, second, other}) == 3
    journal.add_results([(second, b'"done"')])
    journal.close()
    journal = RowJournal(path)
    assert journal.claim(B) == ClaimedRow(other)
    assert journal.claim(A) == ClaimedRow(first)
    assert journal.count_others() == (1, 1)
    assert journal.claim(A) == ClaimedRow(second, b'"done"')
    assert journal.claim(A).id not in (first, second, other)
    assert journal.count_others() == (0, 0)
    journal.close()


def test_calls_are_kept_until_their_row_is_done(path: Path):
    journal = RowJournal(path)
    row, number = journal.claim(A).id, journal.first_number
    keys = [b"k%d" % n for n in range(3)]
    journal.add_calls((number + n, row, key) for n, key in enumerate(keys))
    journal.add_answers([(number, b"1")])
    journal.drop_calls([number + 2])
    assert journal.find_unanswered() == [number + 1]
    journal.close()
    journal = RowJournal(path)
    calls = {keys[0]: OldCall(number, b"1"), keys[1]: OldCall(number + 1, None)}
    assert journal.claim(A) == ClaimedRow(row, None, calls)
    assert journal.find_call(number + 2) is None
    journal.add_results([(row, b"[]")])
    assert journal.find_call(number) is None
    journal.close()


def test_what_was_not_committed_before_a_kill_is_not_there(path: Path):
    journal = RowJournal(path)
    row = journal.claim(A).id
    journal.commit()
    journal.add_results([(row, b"1")])
    shutil.copy(path, path.with_suffix(".copy"))
    shutil.copy(f"{path}-wal", path.with_suffix(".copy-wal"))
    journal.close()
    left = RowJournal(path.with_suffix(".copy"))
    assert left.claim(A) == ClaimedRow(row)
    left.close()


def test_sessions_share_a_run_and_no_numbers(path: Path):
    found = []
    for _ in range(3):
        journal = RowJournal(path)
        found.append((journal.run, journal.first_number))
        journal.close()
    assert len({run for run, _ in found}) == 1
    assert len({number for _, number in found}) == 3
    assert all(number + (1 << 32) <= HIGHEST for _, number in found)


def test_a_change_is_noticed_once(path: Path):
    journal = RowJournal(path)
    assert [journal.is_changed("source", each) for each in "aabb"] == [
        *(False, False, True, False)
    ]
    journal.close()


def test_one_program_has_it_at_a_time(path: Path):
    journal = RowJournal(path)
    with pytest.raises(BatchFileError, match="is used by another program"):
        RowJournal(path)
    journal.close()
    RowJournal(path).close()


def test_no_folder_is_made_for_it(tmp_path: Path):
    """It may be of a disk that is not mounted yet."""
    for path in (tmp_path / "nfs" / "rows.sqlite", tmp_path / "nfs" / "m" / "rows"):
        told = f"there is no folder {tmp_path}/nfs; make it, or correct the path"
        with pytest.raises(BatchFileError, match=told):
            RowJournal(path)
    assert list(tmp_path.iterdir()) == []


def test_it_cannot_be_where_no_file_can_be(path: Path):
    path.mkdir()
    with pytest.raises(BatchFileError, match=r"rows\.sqlite: it is a folder"):
        RowJournal(path)
