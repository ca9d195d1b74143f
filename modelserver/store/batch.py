"""Values of a delivery: a message as pulled, and all that one round trip carries."""

from dataclasses import dataclass, field
from enum import IntEnum

from modelserver.values import Sample

#: Header that counts how often an engine died with the message's request on it.
CRASHES = "crashes"
#: Header that names who submits, for fairness among submitters; a process by default.
SUBMITTER = "submitter"
#: Header with the time by which the answer must be there, seconds since the epoch.
DEADLINE = "deadline_at"


class Stored(IntEnum):
    """What became of a result."""

    STORED = 1
    #: The delivery was no longer the worker's: another worker answers.
    FENCED = 0
    #: A final result stood there already.
    REPEATED = -1


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as pulled: its tag, the list that it came from, its raw JSON."""

    tag: str
    source: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Store one result. ``final`` says that no later state may follow it."""

    tag: str
    key: str
    value: str | bytes
    seconds: int
    final: bool
    #: The task whose deadline this settles, if its message is elsewhere.
    settles: str = ""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Put one held message back to the head of its list, ``raw`` if it changed."""

    tag: str
    source: str
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Park:
    """Set one held message aside until ``due`` (server's clock, seconds)."""

    tag: str
    due: float


@dataclass(frozen=True, slots=True)
class Bury:
    """Keep one held message as a dead letter; acknowledged by the one who asks."""

    tag: str
    task: str
    letter: bytes


@dataclass(slots=True)
class Batch:
    """What one round trip carries. Sent in this order."""

    results: list[StoreResult] = field(default_factory=list)
    acks: list[str] = field(default_factory=list)
    returns: list[GiveBack] = field(default_factory=list)
    parked: list[Park] = field(default_factory=list)
    buried: list[Bury] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    #: Results of ``acks`` once more: a failover may have lost them, and nobody waits.
    again: list[StoreResult] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A renewed lease: the server's time, and whether the lease had ended before."""

    now: float
    lapsed: bool
