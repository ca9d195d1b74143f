"""What operators do with dead letters: send them again, or forget them."""

from functools import partial

from modelserver.errors import RequestError
from modelserver.messaging.wire import result_key
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.messages import dead_letters as letters
from modelserver.store.messages.dead_letters import DeadLetter
from modelserver.store.server.state import connect_to

#: Names every dead letter, in place of one task.
ALL = "all"


def resubmit(store: Store, settings: Settings, task: str) -> tuple[DeadLetter, ...]:
    """Send one or all again; returns those that nobody else has sent meanwhile."""
    key_of, results = partial(result_key, settings), None
    if settings.results_url != settings.redis_url:
        results = connect_to(settings.results_url, store.keys.prefix).client
    return tuple(
        each
        for each in _named(store, task)
        if letters.resubmit(store, each, key_of, results)
    )


def discard(store: Store, task: str) -> tuple[DeadLetter, ...]:
    """Forget one or all; returns those that nobody else has removed meanwhile."""
    return tuple(each for each in _named(store, task) if letters.discard(store, each))


def _named(store: Store, task: str) -> tuple[DeadLetter, ...]:
    """The dead letters meant by "all" or a task's id; RequestError if there is none."""
    found = letters.dead_letters(store)
    named = tuple(each for each in found if task in (each.task, ALL))
    if not named:
        raise RequestError(
            f"there is no dead letter {task}; `modelserver dead` lists them"
        )
    return named
