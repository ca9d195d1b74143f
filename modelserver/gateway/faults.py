"""Errors as OpenAI's HTTP tells them: status, type, parameter and code. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import TaskRevokedError
from redis.exceptions import RedisError

from modelserver.errors import (
    DeadlineExceededError,
    ModelserverError,
    ModelUnavailableError,
    RequestError,
    StoreFullError,
    StoreUnreachableError,
    UnknownModelError,
    UnknownPathError,
)

#: Seconds after which a client may try again that was refused for what passes.
RETRY_SECONDS = 5
#: How an engine says that prompt and answer do not fit together.
_TOO_LONG = re.compile(r"context|maximum.{0,40}length|too long|longer than", re.I)
#: The field that an error begins with, ours or an engine's: "top_p must be ...",
#: "messages[0] ...", "m refused the request: response_format: ...".
_FIELD = re.compile(r"(?:.* refused the request: )?([a-z_]+)")
#: How vLLM names the field at fault.
_PARAMETER = re.compile(r"\(parameter=([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error, as the client gets it."""

    status: int
    message: str
    #: OpenAI's class of it.
    kind: str = "invalid_request_error"
    #: The field of the body that is at fault, where it is known.
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


class Refused(Exception):
    """The request goes no further."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def fault_of(error: BaseException, body: Any = None) -> Fault:
    """What a client is told of an error; ``body`` is the one that it sent.

    >>> fault_of(RequestError("top_p must be a number"), {"top_p": "x"}).param
    'top_p'
    """
    text = str(error)
    if isinstance(error, Refused):
        return error.fault
    if isinstance(error, (RedisError, OSError)):
        return _later(503, f"the queue does not answer: {text}", "queue_unavailable")
    if isinstance(error, UnknownModelError):
        return Fault(404, text, param="model", code="model_not_found")
    if isinstance(error, UnknownPathError):
        return Fault(404, text, code="unknown_url")
    if isinstance(error, RequestError):
        if "context" in text and _TOO_LONG.search(text):
            code = "context_length_exceeded"
            return Fault(400, text, param=_param(text, body), code=code)
        return Fault(400, text, param=_param(text, body))
    if isinstance(error, DeadlineExceededError):
        return Fault(504, text, "server_error", code="deadline_exceeded")
    if isinstance(error, (StoreFullError, StoreUnreachableError)):
        return _later(503, text, "queue_unavailable")
    if isinstance(error, ModelUnavailableError):
        return _later(503, text, "model_unavailable")
    if isinstance(error, TaskRevokedError):
        return Fault(409, "the request was cancelled", code="cancelled")
    if isinstance(error, ModelserverError):
        return _later(503, text, "engine_error")
    return Fault(500, "an error of ours, which its log tells of", "server_error")


def _later(status: int, text: str, code: str) -> Fault:
    again = {"Retry-After": str(RETRY_SECONDS)}
    return Fault(status, text, "server_error", code=code, headers=again)


def _param(text: str, body: Any) -> str | None:
    """The field of a body that an error names, None if it names none."""
    found = _FIELD.match(text)
    if isinstance(body, Mapping) and found and found[1] in body:
        return found[1]
    if named := _PARAMETER.search(text) or re.search(r'no parameter "([^"]+)"', text):
        return named[1]
    is_missing = found and text[found.end() :].startswith(" is missing")
    return found[1] if found and is_missing else None
