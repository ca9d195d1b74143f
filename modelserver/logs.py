"""How programs log: lines for people, or a JSON object a line for programs.

A log call names its values in its text, as in ``"engine=%s %s -> %s"``; in JSON these
are fields of their own.
"""

import json
import logging
import re
from datetime import datetime, timezone

#: How a line for people looks.
TEXT = "%(asctime)s %(levelname)s %(message)s"
#: A value in the text of a log call, with its name where it has one.
_VALUE = re.compile(r'(?:\b(\w+)="?)?%(%|[-#0 +]*[\d.]*[a-zA-Z])')


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, error, and named values."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = named_values(record) | {
            "at": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def named_values(record: logging.LogRecord) -> dict[str, object]:
    """The values that a log call names in its text; the task of Celery's own lines.

    >>> call = {"msg": "engine=%s is %s", "args": ("e-0", "well")}
    >>> named_values(logging.makeLogRecord(call))
    {'engine': 'e-0'}
    """
    # Celery's lines about a task carry more: arguments and answers, for one.
    data = getattr(record, "data", None)
    found: dict[str, object] = {}
    if isinstance(data, dict) and "id" in data:
        found["task"] = data["id"]
    if not isinstance(record.args, tuple):
        return found
    places = [each for each in _VALUE.finditer(str(record.msg)) if each[2] != "%"]
    named = zip(places, record.args, strict=False)
    return found | {place[1]: value for place, value in named if place[1]}


def start_logging(is_json: bool) -> None:
    """Log changes of state to standard error from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if is_json else logging.Formatter(TEXT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
