"""What operators do with dead letters: send them again, or forget them."""

from modelserver.errors import RequestError
from modelserver.messaging.wire import result_key
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store import dead_letters as letters
from modelserver.store.dead_letters import DeadLetter

#: Names every dead letter, in place of one task.
ALL = "all"


def resubmit(store: Store, settings: Settings, task: str) -> tuple[DeadLetter, ...]:
    """Send one or all again; returns those that nobody else has sent meanwhile."""
    return tuple(
        each
        for each in _named(store, task)
        if letters.resubmit(store, each, result_key(settings, each.task))
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
