"""``modelserver dead``: requests that engines died of."""

import dataclasses

import click

from modelserver.cli.output import console, print_json, seconds, table
from modelserver.errors import RequestError
from modelserver.messaging.wire import result_key
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.dead_letters import DeadLetter, dead_letters, discard, resubmit


@click.command()
@click.option("--resubmit", "again", metavar="TASK", help='Send again; "all" for all.')
@click.option("--discard", "forget", metavar="TASK", help='Forget; "all" for all.')
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def dead(again: str | None, forget: str | None, as_json: bool) -> None:
    """List dead letters, send them again or forget them."""
    settings = load()
    store = connect(settings)
    letters = dead_letters(store)
    for letter in _named(letters, again):
        if resubmit(store, letter, result_key(settings, letter.task)):
            click.echo(f"{letter.task} waits in {letter.queue} again")
    for letter in _named(letters, forget):
        if discard(store, letter):
            click.echo(f"{letter.task} is forgotten")
    if again or forget:
        return
    if as_json:
        print_json([_shown(letter) for letter in letters])
        return
    made = table("Dead letters", "task", "model", "age", "reason")
    now = store.now()
    for letter in letters:
        made.add_row(letter.task, letter.queue, seconds(now - letter.at), letter.reason)
    console().print(made if letters else "There are no dead letters.")


def _named(letters: tuple[DeadLetter, ...], task: str | None) -> tuple[DeadLetter, ...]:
    if not task:
        return ()
    named = tuple(each for each in letters if task in (each.task, "all"))
    if not named:
        raise RequestError(
            f"there is no dead letter {task}; `modelserver dead` lists them"
        )
    return named


def _shown(letter: DeadLetter) -> dict[str, object]:
    """All but the message: prompts are kept off the screen."""
    values = dataclasses.asdict(letter)
    del values["message"], values["source"]
    return values
