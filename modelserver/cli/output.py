"""How commands print: tables for people, JSON for programs."""

import json
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table


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


def clock(at: float) -> str:
    """A time for people, in this host's time zone."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def seconds(value: float | None) -> str:
    """Seconds for people: "0.123 s", "4.5 s", "12 min"; "-" for None.

    >>> seconds(0.1234), seconds(4.49), seconds(750), seconds(90_000), seconds(None)
    ('0.123 s', '4.5 s', '12 min', '25 h', '-')
    """
    if value is None:
        return "-"
    if value < 1:
        return f"{value:.3f} s"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h"
