"""A batch as its client asks for it, and what is known of one. Pure."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelserver.errors import RequestError
from modelserver.runs.files.lines import URLS
from modelserver.values import Json

#: How the ids of batches begin.
HEAD = "batch_"
#: The urgency of a batch's rows, unless a key's are less urgent: filler.
PRIORITY = 9
#: Most fields of a batch's metadata, and most characters of a name and of a value.
MOST_METADATA, MOST_NAME, MOST_VALUE = 16, 64, 512
_WINDOW = re.compile(r"([1-9]\d{0,4})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What is known of one batch."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    #: The API key that it belongs to, "" for none.
    owner: str = ""
    #: Models that it may ask for; none are all.
    models: tuple[str, ...] = ()
    priority: int = PRIORITY
    metadata: Mapping[str, Json] = field(default_factory=dict)
    #: Its run, "" until the input was looked at.
    run: str = ""
    submitted_at: int = 0
    cancelled_at: int = 0
    failed_at: int = 0
    #: Whether its time was over before it was done.
    is_expired: bool = False
    #: What is wrong with the input.
    errors: tuple[Mapping[str, Json], ...] = ()
    #: OpenAI's word for how its run ended, "" before all that is to be told of it
    #: stands in its files; and when.
    ended: str = ""
    ended_at: int | None = None


def new_record(
    body: Mapping[str, Any], now: int, owner: str, models: tuple[str, ...], least: int
) -> BatchRecord:
    """What a client asks for. Raises RequestError.

    ``least`` is the most urgent priority that it may have.
    """
    endpoint, file = body.get("endpoint"), body.get("input_file_id")
    if not isinstance(endpoint, str) or endpoint not in URLS:
        raise RequestError(
            f"endpoint must be one of {', '.join(URLS)}, not {endpoint!r}"
        )
    window = body.get("completion_window")
    found = _WINDOW.fullmatch(window) if isinstance(window, str) else None
    if found is None:
        raise RequestError(
            f'completion_window must be a time like "24h" or "30m", not {window!r}'
        )
    return BatchRecord(
        id=f"{HEAD}{uuid.uuid4().hex}",
        endpoint=endpoint,
        input_file_id=file if isinstance(file, str) else "",
        completion_window=found[0],
        created_at=now,
        expires_at=now + int(found[1]) * _UNITS[found[2]],
        owner=owner,
        models=models,
        priority=max(PRIORITY, least),
        metadata=_metadata(body.get("metadata")),
    )


def _metadata(given: Any) -> dict[str, Json]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or len(given) > MOST_METADATA:
        told = f"metadata must be an object of {MOST_METADATA} texts at most"
        raise RequestError(told)
    for name, value in given.items():
        is_text = isinstance(value, str) and len(value) <= MOST_VALUE
        if not is_text or len(name) > MOST_NAME:
            raise RequestError(
                f"metadata[{name[:MOST_NAME]!r}] must be a text of {MOST_VALUE} "
                "characters at most"
            )
    return dict(given)
