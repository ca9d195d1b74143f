"""``modelserver dead``: requests that engines died of, to be sent again."""

import dataclasses

import click

from modelserver.cli.output import console, print_json, seconds, table
from modelserver.operations.dead_letters import discard, resubmit
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.messages.dead_letters import DeadLetter, dead_letters


@click.command()
@click.option(
    "--resubmit", "again", metavar="TASK", help='Task to send again, or "all".'
)
@click.option("--discard", "forget", metavar="TASK", help='Task to forget, or "all".')
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def dead(again: str | None, forget: str | None, as_json: bool) -> None:
    """List dead letters, send them again or forget them."""
    settings = load()
    store = connect(settings)
    if again:
        for letter in resubmit(store, settings, again):
            click.echo(f"{letter.task} waits in {letter.queue} again")
    if forget:
        for letter in discard(store, forget):
            click.echo(f"{letter.task} is forgotten")
    if again or forget:
        return
    letters = dead_letters(store)
    if as_json:
        print_json([_shown(letter) for letter in letters])
        return
    made = table("Dead letters", "task", "model", "age", "reason")
    now = store.now()
    for letter in letters:
        made.add_row(letter.task, letter.queue, seconds(now - letter.at), letter.reason)
    console().print(made if letters else "There are no dead letters.")


def _shown(letter: DeadLetter) -> dict[str, object]:
    """All but the message: prompts are kept off the screen."""
    values = dataclasses.asdict(letter)
    del values["message"], values["source"]
    return values
