"""How commands print: tables for people, JSON for programs."""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from modelserver.operations.words import seconds as seconds


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
