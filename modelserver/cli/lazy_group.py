"""A group of commands that are imported when they are asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click


class CommandPlace(NamedTuple):
    """Where a command is defined, and what the list of commands says of it."""

    #: Its module in this package.
    module: str
    told: str
    #: Its name there, "" for its own with "_" for "-".
    name: str = ""


class LazyGroup(click.Group):
    """Imports a command when it is asked for: most need little of the whole."""

    def __init__(
        self, *args: Any, places: Mapping[str, CommandPlace], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, None if there is none."""
        place = self.places.get(cmd_name)
        if place is None:
            return None
        if refusal := self.find_refusal(cmd_name):
            return refusal
        module = import_module(f"modelserver.cli.{place.module}")
        name = place.name or cmd_name.replace("-", "_")
        command: click.Command = getattr(module, name)
        return command

    def find_refusal(self, name: str) -> click.Command | None:
        """A command that stands for one that cannot run here, None for all."""
        return None

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the list of commands, without importing any."""
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(len(name) for name in names)
        listed = [
            self.find_refusal(name) or click.Command(name, help=self.places[name].told)
            for name in names
        ]
        rows = [(str(each.name), each.get_short_help_str(width)) for each in listed]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
