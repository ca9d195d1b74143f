"""What a request's headers say beside its body: who asks, how urgently, until when."""

from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.reading import IS_SHORT
from modelserver.store.fleet.api_keys import ApiKey

#: The longest deadline that a client may ask for, in seconds.
LONGEST_DEADLINE_SECONDS = 7 * 86_400.0

#: The header by which OpenAI's client says how long it waits, in seconds.
CLIENT_TIMEOUT = "x-stainless-read-timeout"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and how its requests stand in their queues."""

    #: Submitters of one queue take turns.
    name: str = ""
    #: 0 is the most urgent, 9 the least.
    priority: int = 0
    #: Seconds within which an answer is due; None leaves it to the fleet.
    deadline: float | None = None
    #: What the client calls this request, so that a repeat is none. Such a one goes on
    #: where its client goes away, which may come again.
    idempotency_key: str = ""
    #: Whether a second engine may be asked where the first one takes long.
    may_be_hedged: bool = False
    #: Whether its body is quick to look through.
    is_short: bool = False


def find_caller(request: web.Request, key: ApiKey | None, hedges: bool) -> Caller:
    """Who asks, by its key and the request's headers. Raises Refused."""
    urgent = _number(request, "x-modelserver-priority", 9) or 0
    name = _text(request, "x-modelserver-submitter")
    return Caller(
        name=key.name if key else name,
        priority=max(urgent, key.priority) if key else urgent,
        deadline=_seconds(request),
        idempotency_key=_text(request, "idempotency-key"),
        may_be_hedged=_whether(request, "x-modelserver-hedge", hedges),
        is_short=request[IS_SHORT],
    )


def _seconds(request: web.Request) -> float | None:
    name = "x-modelserver-deadline"
    value = request.headers.get(name)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= LONGEST_DEADLINE_SECONDS:
        return seconds
    text = f"{name} must be a number of seconds above 0, not {value[:64]!r}"
    raise Refused(Fault(400, text, param=name))


def find_patience(request: web.Request) -> float | None:
    """How long the client itself waits for an answer, in seconds, if it says so."""
    with suppress(ValueError):
        seconds = float(request.headers.get(CLIENT_TIMEOUT, ""))
        return seconds if seconds > 0 else None
    return None


def _whether(request: web.Request, name: str, default: bool) -> bool:
    value = request.headers.get(name)
    if value is None:
        return default
    if value in ("true", "false"):
        return value == "true"
    raise Refused(
        Fault(400, f"{name} must be true or false, not {value[:64]!r}", param=name)
    )


def _number(request: web.Request, name: str, most: int) -> int | None:
    value = request.headers.get(name)
    if value is None:
        return None
    # Python refuses numbers of thousands of digits.
    if value.isascii() and value.isdecimal() and len(value) < 10 and int(value) <= most:
        return int(value)
    text = f"{name} must be a whole number from 0 to {most}, not {value[:64]!r}"
    raise Refused(Fault(400, text, param=name))


def _text(request: web.Request, name: str) -> str:
    value = request.headers.get(name, "")
    try:
        value.encode()
    except UnicodeEncodeError:
        text = f"{name} must be text in UTF-8"
        raise Refused(Fault(400, text, param=name)) from None
    return value
