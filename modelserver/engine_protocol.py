"""What is said between us and an engine by whatever way: paths, faults, complaints.

Callers need it, too, and have no use for what speaks HTTP.
"""

import re
from typing import Any

#: Where an engine completes prompts.
COMPLETIONS_PATH = "/v1/completions"
#: Where an engine answers messages.
CHAT_PATH = "/v1/chat/completions"
#: Where an engine embeds texts.
EMBEDDINGS_PATH = "/v1/embeddings"
#: Where an engine answers in OpenAI's newer form.
RESPONSES_PATH = "/v1/responses"
#: The events that end a stream of that form; no "[DONE]" comes after them.
RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete"})
#: How an engine says, as the failure of a stream, that a request is too long for it.
TOO_LONG = re.compile(r"context length", re.I)
#: Where an engine's tokenizer makes tokens of a text, and a text of tokens.
TOKENIZE_PATH = "/tokenize"
DETOKENIZE_PATH = "/detokenize"

#: HTTP statuses that are the request's fault; every other error is the engine's.
REQUEST_FAULTS = frozenset({400, 404, 405, 413, 415, 422})
#: One complaint in an engine's text of a validation error: the end of
#: "('body', 'messages', 0)" (SGLang) or "body.messages.0" (vLLM), and what is wrong
#: there. The input beside it, which can be the whole prompt, is left out.
COMPLAINT = re.compile(
    r"""'loc': (?:\('body'((?:, (?:'[a-z_]+'|\d+))*).*?\)"""
    r"""|'body((?:\.(?:[a-z_]+|\d+)(?=[.']))*).*?'), 'msg': (['"])(.*?)\3, '"""
)
#: Most complaints that an error tells: one wrong value can cause many.
MOST_COMPLAINTS_TOLD = 3
#: The place in an engine's own program, after its message or before it.
SOURCE_PLACE = re.compile(r"\s+File \".*|\[[\d:]+\] \S+:\d+: ", re.S)
#: The fields of a body that tell of an error.
_SAID_IN = ("error", "message", "detail")
#: The folders in a file's path.
FOLDERS = re.compile(r"(?<![\w:/.])/(?:[\w.+-]+/)+")


class EngineFault(Exception):
    """The engine failed."""

    def __init__(self, message: str, retry_after: float = 0.0, way: str = "") -> None:
        super().__init__(message)
        #: In what way it answered wrongly, which the request may be the cause of; ""
        #: where it cannot, as with a broken connection.
        self.way = way
        #: The seconds that it asked to wait before another try, or 0.
        self.retry_after = retry_after


class RequestFault(Exception):
    """The engine refused the request; the message is the engine's own."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        #: The HTTP status of its refusal.
        self.status = status


def told_in(value: Any) -> str:
    """What a body, or a part of one, says of an error; "" if nothing."""
    if isinstance(value, dict) and not value.keys().isdisjoint(_SAID_IN):
        return message_in(value)
    return ""


def message_in(body: Any) -> str:
    """The message inside an error body, in OpenAI's, SGLang's or FastAPI's shape."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            inner = inner.get("message") or inner.get("detail") or inner
        body = inner
    return _plain(str(body))[:1000]


def _plain(message: str) -> str:
    """An engine's message without its program's paths, lines and data structures.

    >>> _plain("1 error: {'loc': ('body', 'n'), 'msg': 'Too few', 'input': 0}")
    'n: Too few'
    >>> _plain("1 error: {'loc': 'body.messages.0.Tool.id', 'msg': 'Odd', 'input': 0}")
    'messages[0]: Odd'
    """
    complaints = [
        f"{_place(tuples or dotted)}: {said}"
        for tuples, dotted, _, said in COMPLAINT.findall(message)
    ]
    if complaints:
        message = "; ".join(list(dict.fromkeys(complaints))[:MOST_COMPLAINTS_TOLD])
    return FOLDERS.sub("", SOURCE_PLACE.sub("", message)).strip()


def _place(place: str) -> str:
    """``, 'messages', 0`` and ``.messages.0`` as ``messages[0]``."""
    named = re.sub(r", '(\w+)'", r".\1", place)
    return re.sub(r"(?:, |\.)(\d+)", r"[\1]", named).lstrip(".") or "the request"
