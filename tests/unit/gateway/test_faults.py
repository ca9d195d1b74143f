"""Errors in OpenAI's form."""

import pytest

from modelserver.errors import (
    DeadlineExceededError,
    EngineError,
    ModelUnavailableError,
    PoisonError,
    RequestError,
    StoreFullError,
    StoreUnreachableError,
    UnknownModelError,
)
from modelserver.gateway.faults import fault_of


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (RequestError("odd"), 400, "invalid_request_error", None),
        (
            RequestError("the context of m is 5 tokens: too long"),
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        (UnknownModelError("no m"), 404, "invalid_request_error", "model_not_found"),
        (DeadlineExceededError("late"), 504, "server_error", "deadline_exceeded"),
        (EngineError("died"), 503, "server_error", "engine_error"),
        (PoisonError("set aside"), 503, "server_error", "engine_error"),
        (ModelUnavailableError("down"), 503, "server_error", "model_unavailable"),
        (StoreFullError("full"), 503, "server_error", "queue_unavailable"),
        (StoreUnreachableError("gone"), 503, "server_error", "queue_unavailable"),
        (ConnectionResetError("gone"), 503, "server_error", "queue_unavailable"),
        (ZeroDivisionError("a secret"), 500, "server_error", None),
    ],
)
def test_each_error_has_its_status(
    error: Exception, status: int, kind: str, code: str | None
):
    fault = fault_of(error)
    assert (fault.status, fault.kind, fault.code) == (status, kind, code)
    assert ("Retry-After" in fault.headers) == (status == 503)


def test_what_we_did_not_foresee_is_not_told():
    assert "secret" not in fault_of(ZeroDivisionError("a secret")).message


def test_the_field_at_fault_is_named():
    body = {"top_p": 2, "messages": []}
    assert fault_of(RequestError("top_p must be a number"), body).param == "top_p"
    assert fault_of(RequestError("messages[0] has no role"), body).param == "messages"
    assert fault_of(RequestError("the text is odd"), body).param is None
    assert fault_of(RequestError("model is missing; name one"), body).param == "model"


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ("top_p must be in (0, 1], got 0.0.", "top_p"),
        ("messages[0].role: Input should be 'user'", "messages"),
        ("Too many. (parameter=max_output_tokens, value=9)", "max_output_tokens"),
        ("range() arg 3 must not be zero", None),
    ],
)
def test_the_field_that_an_engine_refuses_is_named(words: str, param: str | None):
    error = RequestError(f"m refused the request: {words}")
    assert fault_of(error, {"top_p": 0, "messages": []}).param == param
