"""Answers and errors as lines of OpenAI's Batch API. Pure."""

from typing import Any

import orjson

from modelserver.messaging.answers import typed
from modelserver.runs.rows import Answered, RowError

#: By whose fault it is: the code of an error that is no HTTP answer.
_CODES = {
    "answer": "invalid_answer",
    "deadline": "request_timeout",
    "cancelled": "batch_cancelled",
    "expired": "batch_expired",
    "engine": "engine_error",
    "poison": "poison",
    "model": "model_unavailable",
}


def line_head(run: str) -> bytes:
    """How every line of a run's output begins, up to the number of its row."""
    return b'{"id":"batch_req_' + run.encode() + b"-"


def answer_line(run: str, custom_id: str, answered: Answered) -> bytes:
    """The output line of an answer. What the engine did not say stands beside its body.

    >>> body = {"choices": [], "engine": "m-0", "seconds": 1.0}
    >>> answer_line("r", "a", Answered(0, body)).startswith(line_head("r") + b"0")
    True
    """
    body = typed(answered.value)
    response = {
        "status_code": 200,
        "request_id": f"{run}-{answered.number}",
        "engine": body.pop("engine", None),
        "seconds": body.pop("seconds", None),
        "attempts": body.pop("attempts", 1),
        "body": body,
    }
    if answered.cached:
        response["cached"] = True
    return _line(run, answered.number, custom_id, response, None)


def error_line(run: str, number: int, custom_id: str | None, error: RowError) -> bytes:
    """The line of a row that has no answer: 400 where the request itself is wrong."""
    if error.fault == "request":
        told = {
            "message": error.message,
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        response = {
            "status_code": 400,
            "request_id": f"{run}-{number}",
            "body": {"error": told},
        }
        return _line(run, number, custom_id, response, None)
    code = _CODES.get(error.fault, "engine_error")
    return _line(run, number, custom_id, None, {"code": code, "message": error.message})


def _line(
    run: str, number: int, custom_id: str | None, response: Any, error: Any
) -> bytes:
    values = {
        "id": f"batch_req_{run}-{number}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
