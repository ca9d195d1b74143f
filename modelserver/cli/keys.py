"""``modelserver keys`` and ``modelserver usage``: who may use OpenAI's API, and did."""

import csv
import dataclasses
import re
import sys

import click

from modelserver.cli.output import FittingTable, console, print_json, table
from modelserver.errors import ConfigurationError
from modelserver.operations.words import clock
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.fleet.api_keys import (
    ApiKey,
    Used,
    add_api_key,
    read_api_keys,
    read_books,
    revoke_api_key,
)

#: What a key may be called: it is a submitter's name and a part of names in Redis.
NAME = re.compile(r"[\w.@-]{1,64}")
_LIMIT = click.IntRange(min=1)


@click.group()
def keys() -> None:
    """API keys of OpenAI's API (see serve): who may ask, for what, how much.

    Without any, only programs of the gateway's own machine are answered.
    """


@keys.command()
@click.argument("name")
@click.option("--models", metavar="A,B", default="", help="Only these models.")
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    default=0,
    show_default=True,
    help="The most urgent priority of its requests; 0 comes first, 9 last.",
)
@click.option("--rpm", type=_LIMIT, default=None, help="Most requests a minute.")
@click.option("--tpm", type=_LIMIT, default=None, help="Most tokens a minute.")
@click.option("--daily-tokens", type=_LIMIT, default=None, help="Most tokens a day.")
def add(
    name: str,
    models: str,
    priority: int,
    rpm: int | None,
    tpm: int | None,
    daily_tokens: int | None,
) -> None:
    """Make a key and print it, once. An older one of this name ends."""
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"a key's name has up to 64 letters, digits and . _ @ -, not {name!r}"
        )
    settings = load()
    wanted = tuple(filter(None, models.split(",")))
    store = connect(settings)
    key = ApiKey(name, wanted, priority, rpm or 0, tpm or 0, daily_tokens or 0)
    with store.reachable():
        known = {model.name for model in settings.fleet.models}
        if unknown := [model for model in wanted if known and model not in known]:
            raise ConfigurationError(
                f"the fleet has no model {', '.join(unknown)}; it has "
                f"{', '.join(sorted(known))}"
            )
        secret = add_api_key(store, key)
    click.echo(secret)
    click.echo("Nobody can show it again: keep it where secrets are kept.", err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_(as_json: bool) -> None:
    """List the keys, without their secrets."""
    store = connect(load())
    with store.reachable():
        found = read_api_keys(store)
    if as_json:
        print_json([dataclasses.asdict(key) for key in found])
        return
    numbers = ("priority", "requests/min", "tokens/min", "tokens/day")
    made = table("API keys", "name", *numbers, "made", "models", numbers=numbers)
    for key in found:
        limits = [f"{most:,}" if most else "-" for most in _limits(key)]
        models = ", ".join(key.models) or "all"
        made.add_row(key.name, str(key.priority), *limits, clock(key.made_at), models)
    listed = FittingTable(made, ("made", "priority"))
    console().print(listed if found else "There are no API keys.")


def _limits(key: ApiKey) -> tuple[int, int, int]:
    return key.rpm, key.tpm, key.daily_tokens


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """End a key: no request with it is taken from now on."""
    store = connect(load())
    with store.reachable():
        if not revoke_api_key(store, name):
            names = ", ".join(key.name for key in read_api_keys(store)) or "none"
            raise ConfigurationError(f'there is no key "{name}"; there are: {names}')
    click.echo(f"{name} is revoked.")


@click.command()
@click.option(
    "--days",
    type=click.IntRange(1, 400),
    default=30,
    show_default=True,
    help="Number of days to look back at, today included.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def usage(days: int, as_csv: bool, as_json: bool) -> None:
    """Show what API keys used: by key, model and day (UTC)."""
    store = connect(load())
    with store.reachable():
        found = read_books(store, days)
    if as_json:
        print_json([dataclasses.asdict(used) for used in found])
        return
    columns = [field.name for field in dataclasses.fields(Used)]
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(dataclasses.astuple(used) for used in found)
        return
    numbers = ("requests", "prompt tokens", "completion tokens")
    made = table("Usage", "key", "day", "model", *numbers, numbers=numbers)
    for used in found:
        counts = (used.requests, used.prompt_tokens, used.completion_tokens)
        made.add_row(used.key, used.day, used.model, *(f"{n:,}" for n in counts))
    console().print(made if found else f"No key was used in {days} days.")
