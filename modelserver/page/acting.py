"""What the buttons of the page order: what commands of the same names do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from celery import Celery

from modelserver.operations import orders
from modelserver.operations.status import read_status
from modelserver.policy.orders import DRAIN, PAUSE
from modelserver.runs.hosting.orders import find_run, order_run, resume_run
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.runs.hosted import RunOrder


@dataclass(frozen=True, slots=True)
class Button:
    """Who pressed it, and what it is about."""

    store: Store
    settings: Settings
    app: Celery
    #: The name of an engine, a model or a run.
    target: str
    #: Who orders it, for those who run ``why``.
    who: str


def _drain(button: Button) -> None:
    found = read_status(button.store, button.settings)
    orders.drain(button.store, found, button.target, button.who, "")


def _relaunch(button: Button) -> None:
    orders.relaunch(button.store, button.target, button.who)


def _pause(button: Button) -> None:
    found = read_status(button.store, button.settings)
    orders.pause(button.store, found, button.target, button.who)


def _withdraw(kind: str) -> Callable[[Button], None]:
    def act(button: Button) -> None:
        orders.withdraw(button.store, kind, button.target)

    return act


def _order(order: RunOrder) -> Callable[[Button], None]:
    def act(button: Button) -> None:
        found = find_run(button.store, button.target)
        order_run(button.app, button.store, found, order)

    return act


def _resume_run(button: Button) -> None:
    resume_run(button.store, find_run(button.store, button.target))


#: What each button does, by the folder of the page that has it and its own name.
ACTIONS: Mapping[tuple[str, str], Callable[[Button], None]] = {
    ("engines", "drain"): _drain,
    ("engines", "undrain"): _withdraw(DRAIN),
    ("engines", "relaunch"): _relaunch,
    ("engines", "pause"): _pause,
    ("engines", "resume"): _withdraw(PAUSE),
    ("models", "pause"): _pause,
    ("models", "resume"): _withdraw(PAUSE),
    ("runs", "pause"): _order(RunOrder.PAUSE),
    ("runs", "cancel"): _order(RunOrder.CANCEL),
    ("runs", "resume"): _resume_run,
}


def page_of(folder: str, target: str) -> str:
    """The path of the page that a button stands on.

    >>> page_of("models", "org/m")
    '/models/org%2Fm'
    """
    return f"/{folder}/{quote(target, safe='')}"
