"""JSON as Celery and kombu write it, several times faster.

For results, and for messages.
"""

from typing import Any

import orjson
from kombu.utils.json import JSONEncoder
from kombu.utils.json import dumps as kombu_dumps

#: What orjson would write in a way of its own is left to kombu.
_AS_KOMBU = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
#: What kombu makes of a value that JSON has no form for.
as_kombu_does = JSONEncoder().default


def encode(value: Any) -> bytes:
    """JSON as Celery's serializer writes it."""
    try:
        return orjson.dumps(value, default=as_kombu_does, option=_AS_KOMBU)
    except TypeError:
        # Such as numbers beyond 64 bits; kombu knows what to do, or says what is wrong.
        return str(kombu_dumps(value)).encode()
