"""The panel of a run while it goes on."""

import sys
import time
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelserver.cli.output import seconds, table
from modelserver.runs.files.batch_run import NO_MODEL
from modelserver.runs.files.tally import Tally
from modelserver.runs.waiting import ShownRun, count_ready, find_wait

#: The panel is drawn anew after so many seconds.
DRAWN_SECONDS = 0.5
#: Where there is no terminal, a line is written after so many seconds.
LINE_SECONDS = 30.0
#: Columns of the panel's bar.
BAR_WIDTH = 40


class Panel:
    """Shows a run on stderr: a panel in a terminal, else a line now and then."""

    def __init__(self, run: ShownRun, is_quiet: bool) -> None:
        self._run = run
        self._console = Console(stderr=True)
        self._is_quiet = is_quiet
        self._is_live = not is_quiet and sys.stderr.isatty()
        self._live = Live(console=self._console, auto_refresh=False)
        self._drawn_at = time.monotonic()

    def __enter__(self) -> "Panel":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_live:
            self._live.update(render(self._run), refresh=True)
            self._live.stop()

    def draw(self) -> None:
        """Show it anew if it is time."""
        pause = DRAWN_SECONDS if self._is_live else LINE_SECONDS
        if self._is_quiet or time.monotonic() - self._drawn_at < pause:
            return
        self._drawn_at = time.monotonic()
        if self._is_live:
            self._live.update(render(self._run), refresh=True)
        else:
            click.echo(line(self._run), err=True)


def render(run: ShownRun) -> Group:
    """The whole panel."""
    tally = run.tally
    done = tally.answered + tally.failed
    head = Table.grid(padding=(0, 2))
    told = [f"{done:,}/{tally.total:,}", _failed(tally), f"ETA {_eta(tally)}"]
    bar = ProgressBar(total=max(1, tally.total), completed=done, width=BAR_WIDTH)
    head.add_row(bar, *told)
    parts: list[Any] = [head, Text(_speed(run)), Text(_engines(run)), _models(run)]
    if waits := find_wait(run):
        parts.append(Text(f"waits: {waits}", style="yellow"))
    return Group(*parts)


def line(run: ShownRun) -> str:
    """The same in one line."""
    tally = run.tally
    done = f"{tally.answered + tally.failed:,}/{tally.total:,}"
    waits = f"; waits: {waits}" if (waits := find_wait(run)) else ""
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    return f"{done}{failed}, ETA {_eta(tally)}; {_speed(run)}, {_engines(run)}{waits}"


def _failed(tally: Tally) -> str:
    return f"[red]{tally.failed:,} failed[/]" if tally.failed else "0 failed"


def _eta(tally: Tally) -> str:
    return seconds(tally.eta_seconds) if tally.left else "done"


def _speed(run: ShownRun) -> str:
    rows, prompt, completion = run.tally.rates
    under_way = len(run.feeder.under_way) if run.feeder else 0
    return (
        f"{rows:,.1f} requests/s, {prompt:,.0f} tokens/s in, {completion:,.0f} "
        f"tokens/s out, {under_way:,} in flight"
    )


def _engines(run: ShownRun) -> str:
    models = run.models_under_way() | (run.tally.models.keys() - {NO_MODEL})
    return f"{count_ready(run, models)} engines ready"


def _models(run: ShownRun) -> Table:
    counted = ("answered", "failed", "cut off", "tokens in", "tokens out")
    numbers = (*counted, "engines", "places")
    made = table("", "model", *numbers, numbers=numbers)
    made.title = None
    places = run.feeder.places if run.feeder else {}
    for name, each in sorted(run.tally.models.items()):
        counts = (each.answered, each.failed, each.cut_off)
        tokens = (each.prompt_tokens, each.completion_tokens)
        shown = [f"{count:,}" for count in (*counts, *tokens)]
        shown += [count_ready(run, [name]), f"{places.get(name, 0):,}"]
        made.add_row(escape(name), *shown)
    return made
