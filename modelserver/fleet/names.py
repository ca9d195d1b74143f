"""The part of the fleet file about names: of models, those that are taken, of hosts."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

#: Queues and our own keys stand side by side in Redis: what no model may be called.
RESERVED_NAMES = frozenset(
    {
        "alerts",
        "answers",
        "availability",
        "celeryev",
        "changed",
        "control",
        "dead",
        "deadlines",
        "decisions",
        "delayed",
        "desired",
        "engines",
        "fleet",
        "hosts",
        "incarnations",
        "metrics",
        "operator",
        "revoked",
        "tags",
        "unacked",
        "unacked_index",
        "unacked_mutex",
        "workers",
    }
)
#: How the names of Celery's own keys begin and end.
_RESERVED_STARTS = ("celery-task-meta-", "celery-taskset-meta-", "celeryev.")
_RESERVED_ENDS = (".celery.pidbox",)


def _as_a_name(name: str) -> str:
    taken = name in RESERVED_NAMES or name.startswith(_RESERVED_STARTS)
    if taken or name.endswith(_RESERVED_ENDS):
        raise ValueError(
            f'"{name}" is a key of modelserver\'s own in Redis; choose another name '
            f"(taken are: {', '.join(sorted(RESERVED_NAMES))}, and what begins with "
            f"{', '.join(_RESERVED_STARTS)} or ends with {_RESERVED_ENDS[0]})"
        )
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(
            f'"{name}" names files as well; leave out parts that are empty, . or ..'
        )
    return name


#: The names of models, which name queues and files as well.
Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"),
    AfterValidator(_as_a_name),
]


#: A host's name, which names folders, keys and Celery's workers as well.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


def check_host_name(name: str) -> str:
    """The name of a host. Raises ValueError where it can be none.

    >>> check_host_name("gpu-1.example.org")
    'gpu-1.example.org'
    >>> check_host_name("gpu 1")
    Traceback (most recent call last):
      ...
    ValueError: 'gpu 1' can be no host's name; use letters, digits, ".", "-" and "_"
    """
    if not _HOST.fullmatch(name):
        raise ValueError(
            f'{name!r} can be no host\'s name; use letters, digits, ".", "-" and "_"'
        )
    return name


def _check_host_if_any(name: str) -> str:
    return check_host_name(name) if name else name


#: The name of a host.
HostName = Annotated[str, AfterValidator(check_host_name)]
#: The name of a host, "" for none.
HostNameOrNone = Annotated[str, AfterValidator(_check_host_if_any)]
