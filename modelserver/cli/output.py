"""How commands print: tables for people, JSON for programs."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

from modelserver.operations.words import seconds as seconds

#: The last column of a table may be folded to so many letters.
FOLDED_WIDTH = 24


@dataclass(frozen=True, slots=True)
class FittingTable:
    """A table that leaves columns out where the screen is narrow.

    Only its last column is folded; words of the others stay whole.
    """

    table: Table
    #: What may be left out, in this order.
    spare: tuple[str, ...]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """The table with the columns that fit, and the names of the others."""
        columns, left_out = list(self.table.columns), []
        while not (fits := self._fits(columns, console, options)):
            shown = {each.header for each in columns}
            name = next((each for each in self.spare if each in shown), None)
            if name is None:
                break
            columns = [each for each in columns if each.header != name]
            left_out.append(name)
        yield self._of(columns, fits)
        if left_out:
            yield f"[dim](no room for {', '.join(left_out)})[/dim]"

    def _of(self, columns: Sequence[Column], is_whole: bool) -> Table:
        """A table of these columns; ``is_whole`` keeps words of all but the last."""
        made = copy.copy(self.table)
        made.columns, made.rows = [], []
        for each in columns:
            made.add_column(
                each.header,
                justify=each.justify,
                overflow=each.overflow,
                no_wrap=is_whole and each is not columns[-1],
            )
        for cells in zip(*(each.cells for each in columns), strict=True):
            made.add_row(*cells)
        return made

    def _fits(
        self, columns: Sequence[Column], console: Console, options: ConsoleOptions
    ) -> bool:
        """Whether there is room for these columns, and a folded last one."""
        free = options.update(width=1000)
        whole = Measurement.get(console, free, self._of(columns, True)).maximum
        last = Measurement.get(console, free, self._of(columns[-1:], True)).maximum
        return whole - max(0, last - FOLDED_WIDTH) <= options.max_width


def console() -> Console:
    """A console as wide as the terminal; into a pipe, wide enough for every column."""
    wide = Console()
    return wide if wide.is_terminal else Console(width=200)


def printer(screen: Console, **options: Any) -> Callable[[str], None]:
    """Prints whole lines, for who copies from them or looks for something in them."""
    return partial(screen.print, soft_wrap=True, **options)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))


def table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns in ``numbers`` are aligned to the right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        right = column in numbers
        made.add_column(column, justify="right" if right else "left", overflow="fold")
    return made
