"""How commands print: tables for people, JSON for programs."""

import copy
import json
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

from modelserver.operations.words import seconds as seconds

#: The last column of a table may be folded to so many letters.
FOLDED_WIDTH = 24
#: Letters between two columns.
GAP = 2


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
        made = copy.copy(self.table)
        left_out: list[str] = []
        while (name := self._find_spare(made, console, options)) is not None:
            made.columns = [each for each in made.columns if each.header != name]
            left_out.append(name)
        yield made
        if left_out:
            yield f"[dim](no room for {', '.join(left_out)})[/dim]"

    def _find_spare(
        self, made: Table, console: Console, options: ConsoleOptions
    ) -> str | None:
        """What is to be left out next, None where all fits or nothing is spare."""
        whole = copy.copy(made)
        whole.columns = made.columns[:-1]
        for column in whole.columns:
            column.no_wrap = True
        free = options.update(width=1000)
        width = Measurement.get(console, free, whole).maximum + GAP + FOLDED_WIDTH
        if width <= options.max_width:
            return None
        shown = {each.header for each in made.columns}
        return next((name for name in self.spare if name in shown), None)


def console() -> Console:
    """A console as wide as the terminal; into a pipe, wide enough for every column."""
    wide = Console()
    return wide if wide.is_terminal else Console(width=200)


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
