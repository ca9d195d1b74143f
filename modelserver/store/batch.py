"""Values of a delivery: a message as pulled, and all that one round trip carries."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from modelserver.measured import Sample

#: The header that counts how often an engine died with the message's request on it.
CRASHES = "crashes"
#: The header that says how many suspects died on one engine together.
SUSPECTS = "suspects"
#: The header that tells of the attempts so far that failed.
TRIES = "failed_tries"
#: The first key of a message that is for other workers for now, where scripts read it:
#: until when, in seconds of the server's clock, and who has passed it on, each name
#: between bars. Before it goes back it is told like a header.
LEFT_BY = "left_by"
#: The header that counts the workers that died with the message.
REAPS = "reaps"
#: The header that counts how often the message could not be handed over or run.
FAULTS = "faults"
#: The header of a request that may get a second engine where its first takes long.
HEDGE = "hedge"
#: The header that names who submits; submitters of one queue take turns.
SUBMITTER = "submitter"
#: The header of a message whose answer is stored already: only what follows is missing.
ANSWERED = "answered"
#: The header of requests with the time of their submission, seconds since the epoch by
#: the submitter's clock.
SENT = "sent_at"
#: The header with the time by which the answer must be there, seconds since the epoch.
DEADLINE = "deadline_at"
#: The header with the seconds that were given when it was submitted.
DEADLINE_SECONDS = "deadline_seconds"

#: The header of a request whose id its client gave: what an older result means. It is
#: taken off as the message is put.
RESUBMISSION = "resubmission"
#: Value of RESUBMISSION: an error is forgotten; with an answer nothing is put.
UNLESS_ANSWERED = "unless answered"
#: Value of RESUBMISSION: an error is forgotten, and the message is put anyway.
ALWAYS = "always"
#: The header of a request that is not put again while it is under way, for so many
#: whole seconds. It is taken off as the message is put.
ONCE_SECONDS = "once_seconds"
#: The header of a request whose waiter reads an answer of many bytes itself.
BY_NOTICE = "by_notice"
#: A result of more bytes is told to such a waiter by an empty notice: a server closes a
#: connection that listens where much waits for it, and who else waits there loses time.
NOTICE_BYTES = 1_000_000


#: How the message of a bundle begins.
_ROWS_FIRST = re.compile(rb'\{"rows":(\d+)')


class Stored(IntEnum):
    """What became of a result."""

    #: It stands there now.
    STORED = 1
    #: The delivery was no longer the worker's: another worker answers.
    FENCED = 0
    #: A final result stood there already.
    REPEATED = -1
    #: The server refuses it for good, whoever else it serves.
    REFUSED = -2


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as pulled."""

    #: What it is acknowledged by.
    tag: str
    #: The list that it came from.
    source: str
    #: The message, as JSON.
    raw: bytes

    @property
    def rows(self) -> int:
        """How many rows it carries: one, but for a bundle.

        >>> Delivery("1", "m", b'{"rows":32,"body":""}').rows
        32
        """
        found = _ROWS_FIRST.match(self.raw)
        return int(found[1]) if found else 1


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Store one result."""

    #: The delivery that it answers.
    tag: str
    #: Where it is stored.
    key: str
    value: str | bytes
    #: How long it is kept.
    seconds: int
    #: Whether no later state may follow it.
    final: bool
    #: The task whose deadline this settles, if its message is elsewhere.
    settles: str = ""
    #: Whether it is told by an empty notice, and whoever waits reads it.
    by_notice: bool = False


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """Store the answer to one row of a bundle."""

    #: The delivery of the bundle.
    tag: str
    run: str
    #: The round of the run.
    round: int
    #: The row.
    number: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Split:
    """Put rows of a held bundle back to the head of its list, as bundles of their own.

    ``before`` is how many rows its message had until now, so that it is done once.
    """

    tag: str
    source: str
    before: int
    #: The message with the rows that stay, b"" if none do: then it is let go.
    rest: bytes
    #: The new messages, the first one in front.
    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Put one held message back to the head of its list."""

    tag: str
    source: str
    #: The message, if it has changed.
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Park:
    """Set one held message aside for later."""

    tag: str
    #: When it is due, in seconds of the store's clock.
    due: float


@dataclass(frozen=True, slots=True)
class Bury:
    """Keep one held message as a dead letter; whoever asks acknowledges it."""

    tag: str
    task: str
    #: What is kept, as JSON.
    letter: bytes


#: Most bytes of messages or results that one round trip moves, but for a single one
#: that is larger.
MOST_BYTES = 8_000_000


def portion(sizes: Iterable[int], most_bytes: int = MOST_BYTES) -> int:
    """How many of these, in order, go together; always one if there is any.

    >>> portion([5, 5, 5], most_bytes=10), portion([99], most_bytes=10)
    (2, 1)
    """
    total = number = 0
    for size in sizes:
        total += size
        if number and total > most_bytes:
            break
        number += 1
    return number


@dataclass(slots=True)
class Batch:
    """What one round trip carries. Sent in this order."""

    results: list[StoreResult] = field(default_factory=list)
    rows: list[RowAnswer] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    acks: list[str] = field(default_factory=list)
    returns: list[GiveBack] = field(default_factory=list)
    parked: list[Park] = field(default_factory=list)
    buried: list[Bury] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    #: Revoked tasks that are settled.
    revoked: list[str] = field(default_factory=list)
    #: Keys of what was published that follows ``acks``.
    published: list[str] = field(default_factory=list)
    #: Results of ``acks`` once more: a failover may have lost them, and nobody waits.
    again: list[StoreResult] = field(default_factory=list)
    #: The same of rows.
    rows_again: list[RowAnswer] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A renewed lease."""

    #: The time of the store's clock.
    now: float
    #: Whether the lease had ended before.
    lapsed: bool
    #: Tasks that are noted as revoked.
    revoked: int = 0
