"""Rows of a run, and what becomes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelserver import errors
from modelserver.errors import ModelserverError
from modelserver.values import Json

#: What a row's error is called whose request was taken back before it was answered.
CANCELLED = "cancelled"
#: What it is called of a row whose run's time was over.
EXPIRED = "expired"
#: What Celery calls the error of a request that was revoked, or expired.
_REVOKED = "TaskRevokedError"
#: By an error's class: whose fault it is, in one word.
_FAULTS = {
    "RequestError": "request",
    "UnknownModelError": "request",
    "AnswerFormError": "answer",
    "DeadlineExceededError": "deadline",
    "PoisonError": "poison",
    "ModelUnavailableError": "model",
    CANCELLED: CANCELLED,
    EXPIRED: EXPIRED,
    _REVOKED: CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a run."""

    #: Its place in the run, from 0.
    number: int
    #: The name of its task, as in ``messaging.wire``.
    task: str
    #: The prompt, the messages or the text to embed.
    payload: Json
    #: What ``delay`` takes by name, the model among them.
    parameters: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no answer."""

    #: The class of the error, of ``modelserver.errors`` where it is ours.
    kind: str
    #: For people.
    message: str

    @classmethod
    def of(cls, error: Exception) -> "RowError":
        """From an exception."""
        return cls(type(error).__name__, str(error))

    @property
    def fault(self) -> str:
        """Whose fault it is: request, answer, engine, deadline, poison, model, ...

        >>> RowError("UnknownModelError", "no such model").fault
        'request'
        """
        return _FAULTS.get(self.kind, "engine")

    def exception(self, prefix: str = "") -> Exception:
        """The error as it is raised; ``prefix`` names the row."""
        kind = getattr(errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, ModelserverError)):
            kind = ModelserverError
        return kind(prefix + self.message)


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a row: a value, as ``.get()`` gives it, or an error."""

    number: int
    value: Any = None
    error: RowError | None = None
    #: Whether it was kept from an identical row.
    cached: bool = False
