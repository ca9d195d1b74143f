"""A file can be read in one go."""

from tests.support.sources import FOLDERS, ROOT, sources

#: The most lines of a Python file.
MOST_LINES = 400


def test_no_file_is_too_long():
    paths = [*ROOT.glob("*.py"), *sources(*FOLDERS)]
    lines = {path: len(path.read_text().splitlines()) for path in paths}
    long = {
        str(path.relative_to(ROOT)): count
        for path, count in lines.items()
        if count > MOST_LINES
    }
    assert long == {}
