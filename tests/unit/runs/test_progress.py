"""How far a run is, where somebody looks at it."""

import io

import pytest

from modelserver.runs.progress import NoBar, NotebookBar, TerminalBar, open_bar


def test_nothing_is_shown_where_nobody_looks():
    assert isinstance(open_bar("prompts", 3, None), NoBar)
    assert isinstance(open_bar("prompts", 3, False), NoBar)


def test_a_terminal_shows_how_many_are_done_and_failed(
    capsys: pytest.CaptureFixture[str],
):
    bar = open_bar("prompts", 3, True)
    assert isinstance(bar, TerminalBar)
    bar.advance(2, 1)
    bar.close()
    shown = capsys.readouterr().err
    assert "2/3" in shown
    assert "1 failed" in shown


def test_a_notebook_shows_the_same():
    tqdm = pytest.importorskip("tqdm")
    shown = io.StringIO()
    bar = NotebookBar(
        lambda **options: tqdm.tqdm(file=shown, **options), "prompts", total=3
    )
    bar.advance(2, 1)
    bar.close()
    assert "2/3" in shown.getvalue()
    assert "failed=1" in shown.getvalue()
