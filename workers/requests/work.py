"""One request under way: what its message says, and what has been tried."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery.worker.state import revoked

from modelserver.messaging.requests import InferenceRequest
from modelserver.store.batch import DEADLINE, SENT
from workers.delivery.server_clock import ServerClock
from workers.delivery.task_times import has_expired
from workers.requests.own_fault import FailedTries
from workers.requests.streams import Stream


@dataclass(slots=True)
class Work:
    """One request of one delivery."""

    request: InferenceRequest
    #: The model whose engines get it.
    model: str
    #: The model that the caller asked for, which may be down.
    asked: str
    #: The adapter of the model that it is for, "" for none.
    adapter: str
    #: What the engine is sent.
    body: dict[str, Any]
    #: The delivery tag of its message.
    tag: str
    #: The id of its task.
    task: str
    #: Engines that died with it on them.
    crashes: int
    #: Suspects like it that an engine gets at a time.
    at_once: int
    #: When Celery expires it, in ISO format.
    expires: str | None
    #: Whether it leaves places free for urgent ones.
    is_filler: bool = False
    #: Attempts so far that no answer came of, on all hosts.
    attempts: int = 0
    #: Those in this delivery whose engine could not be reached, or broke off. They are
    #: no reason to give up, for as long as the engine takes to come back.
    lost: int = 0
    #: How often a worker passed it on, because others' engines had not been tried.
    passes: int = 0
    #: What it has failed at, None before the first time.
    tries: FailedTries | None = None
    #: Engines that control called it off, in this delivery.
    called_off: list[str] = field(default_factory=list)
    #: What its message tells of its trace; empty where traces are off.
    trace: Mapping[str, str] = field(default_factory=dict)
    #: Whether nothing was tried in this delivery.
    is_fresh: bool = True
    #: Whether an engine may be asked, for a row of a run; None for a task.
    may_begin: Callable[[], bool] | None = None
    #: The gateway that is told the parts of the answer, "" for none.
    gateway: str = ""
    #: Whether a second engine may be asked where the first one takes long.
    may_be_hedged: bool = False
    #: The bytes of its message, about.
    size: int = 0
    #: What was told so far, for a request with a gateway.
    stream: Stream | None = None
    #: When it was submitted, in seconds since the epoch; None where that is not said.
    sent_at: float | None = None
    #: Whether its wait was counted, at its first attempt.
    wait_is_counted: bool = False

    @property
    def name(self) -> str:
        """The model or the adapter that answers."""
        return self.adapter or self.model

    @property
    def model_told(self) -> str:
        """The model, as an error names it to the caller."""
        if self.model == self.asked:
            return self.model
        return f"{self.model}, the fallback of {self.asked}, which is down,"

    def find_wait(self, until: float | None, clock: ServerClock) -> float | None:
        """Seconds from its submission to a time of the monotonic clock, if known."""
        if self.sent_at is None or until is None:
            return None
        return max(0.0, clock.at(until) - self.sent_at)

    @property
    def is_unwanted(self) -> bool:
        """Whether it was revoked or has expired."""
        if self.may_begin is not None:
            return not self.may_begin()
        return self.task in revoked or has_expired(self.expires, time.time())


def find_sent(context: Any) -> float | None:
    """When a request was submitted, by its message."""
    at = context.get(SENT)
    return float(at) if isinstance(at, (int, float)) else None


def find_deadline(request: InferenceRequest, context: Any) -> float | None:
    """When the answer is due, seconds since the epoch by this host's clock."""
    at = context.get(DEADLINE)
    if at is not None:
        return float(at)
    return time.time() + request.deadline if request.deadline else None
