"""Requests that each engine must refuse in words, however it is asked."""

from collections.abc import Callable
from typing import Any

from celery.result import AsyncResult

from modelserver.errors import RequestError
from tests.acceptance.product import PATIENCE, Product

#: Sends a request to a model.
Send = Callable[[Product, str], AsyncResult]

HELLO = [{"role": "user", "content": "hi"}]


def _complete(**body: Any) -> Send:
    """A completion with what our own checks would not let through."""
    return lambda fleet, model: fleet.complete.delay(
        "x", model=model, **{"max_tokens": 4, "extra_body": body}
    )


def _chat(messages: Any = HELLO, **body: Any) -> Send:
    return lambda fleet, model: fleet.chat.delay(
        messages, model=model, **{"max_tokens": 4, "extra_body": body}
    )


def _schema(schema: Any) -> dict[str, Any]:
    named = {"name": "a", "schema": schema}
    return {"type": "json_schema", "json_schema": named}


#: By what is wrong.
BAD_REQUESTS: dict[str, Send] = {
    "a temperature of the wrong type": _complete(temperature="hot"),
    "a temperature below zero": _complete(temperature=-1),
    "a role that does not exist": _chat([{"role": "wizard", "content": "hi"}]),
    "a message that is no object": _chat([{"role": "user", "content": [5]}]),
    "a prompt longer than the context": lambda fleet, model: fleet.complete.delay(
        "word " * 5000, model=model
    ),
    "more tokens than the context": _complete(max_tokens=100_000),
    "a regular expression that is none": _complete(
        regex="(", structured_outputs={"regex": "("}
    ),
    "a schema that is none": _chat(response_format=_schema({"type": "x"})),
    "a tool whose schema is none": _chat(
        tools=[{"type": "function", "function": {"name": 5, "parameters": "x"}}]
    ),
    "top_k below -1": _complete(top_k=-5),
    "a stop text of the wrong type": _complete(stop={"a": 1}),
    "a logit_bias of the wrong type": _complete(logit_bias={"1": "much"}),
    "a token that does not exist in logit_bias": _complete(logit_bias={"99999999": 1}),
    "no answers at all": _complete(n=0),
}


def refusal(fleet: Product, model: str, name: str) -> str:
    """The words in which a bad request was refused."""
    try:
        answer = BAD_REQUESTS[name](fleet, model).get(PATIENCE)
    except RequestError as error:
        return str(error)
    raise AssertionError(f"{name}: answered with {answer!r}")
