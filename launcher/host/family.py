"""The processes that an engine cannot do without, watched while it serves.

Not every child is one: compilers and helpers come and go. Engines name those that they
need, and a head whose scheduler is gone may live on and even answer.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

import psutil

from launcher.host.process import Identity, alive

#: How SGLang and vLLM title the processes that they need all of.
VITAL = re.compile(r"sglang::|VLLM::")


@dataclass(frozen=True, slots=True)
class Member:
    """One such process; ``created`` is an epoch time."""

    pid: int
    created: float
    title: str


def members(head: Identity) -> tuple[Member, ...]:
    """The vital processes below an engine's head, or in its container, now."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(head.core).children(recursive=True):
            with suppress(psutil.Error):
                title = " ".join(child.cmdline()).strip()
                if VITAL.match(title):
                    found.append(Member(child.pid, child.create_time(), title))
    return tuple(found)


def missing(family: tuple[Member, ...]) -> Member | None:
    """The first that has ended, None while all live."""
    return next((m for m in family if not alive(m.pid, m.created)), None)
