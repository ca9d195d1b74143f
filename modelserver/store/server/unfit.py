"""Servers that no fleet can use, or not now, told by what they reply."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from redis.exceptions import AskError, InvalidResponse, MovedError

#: The servers that everything is tested with.
TESTED = "Redis 7.2, Valkey 8 or newer"
#: How a server of another protocol is recognised: redis-py's two readers of replies.
_NO_REPLY = re.compile(r"protocol error[,:] (?:got )?(.{0,60})", re.IGNORECASE)
#: With this byte TLS refuses what is no TLS, as both readers show it.
_TLS_ALERT = ("\\x15", "\x15")


@dataclass(frozen=True, slots=True)
class _Fault:
    """A kind of reply; its texts may hold {said}, {database} and {where}.

    They have no "; ", which divides fact and remedy.
    """

    pattern: re.Pattern[str]
    fact: str
    remedy: str


def _fault(pattern: str, fact: str, remedy: str) -> _Fault:
    return _Fault(re.compile(pattern, re.IGNORECASE), fact, remedy)


#: The kinds; the first that fits counts.
_FAULTS = (
    _fault(
        r"running in protected mode",
        "is in protected mode: without a password it takes connections of its own host "
        "only",
        "give it a password by requirepass, and write that in {where}",
    ),
    _fault(
        r"DB index is out of range|invalid DB index|SELECT is not allowed",
        "has no database {database} ({said})",
        "write a lower number in {where}, 0 is always there, or raise databases in its "
        "configuration",
    ),
    _fault(
        r"loading the dataset in memory",
        "loads its data from its disk, and answers nothing else meanwhile",
        "wait, and see its log for how far it is",
    ),
    _fault(
        r"is busy running a (?:script|function)|^BUSY ",
        "is busy with a script that does not end",
        "have its administrator say: SCRIPT KILL",
    ),
    _fault(
        r"hash slot not served|don't hash to the same slot|^CROSSSLOT|^MOVED \d"
        r"|CLUSTERDOWN|cluster is down|not allowed in cluster mode",
        "is a node of a cluster, and a fleet needs all of its keys on one server "
        "({said})",
        "use a server without cluster-enabled; sentinel:// is there for failovers",
    ),
    _fault(
        r"unknown (?:sub|redis |valkey )?command",
        "does not know a command that a fleet needs ({said})",
        f"use {TESTED}, without rename-command for it",
    ),
    _fault(
        r"error compiling script|undeclared key|NOPROTO|unsupported protocol",
        "cannot run what a fleet needs ({said})",
        f"use {TESTED}: others, and what only speaks as they do, are not supported",
    ),
    _fault(
        r"against a read ?only replica|^READONLY",
        "is a replica, which takes no writes",
        "name its primary in {where}, or its sentinels by sentinel://",
    ),
    _fault(
        r"link with (?:master|primary) is down|^MASTERDOWN",
        "is a replica that has lost its primary",
        "name the primary of now in {where}, or its sentinels by sentinel://",
    ),
    _fault(
        r"NOREPLICAS|not enough good replicas",
        "takes no writes, for too few of its replicas are in step",
        "see to its replicas, or lower min-replicas-to-write",
    ),
    _fault(
        r"MISCONF",
        "takes no writes, for it cannot save its data",
        "see its log: its disk may be full, or its folder not writable",
    ),
    _fault(
        r"wrong kind of value|^WRONGTYPE",
        "has a key of another program where the fleet has one ({said})",
        "give the fleet another redis.prefix, or a database of its own",
    ),
    _fault(
        r"max number of clients",
        "has as many clients as it takes",
        "raise its maxclients, and the files that it may have open",
    ),
)


def find_fault(error: BaseException, server: str, database: int, where: str) -> str:
    """Fact and remedy, "; " between them; "" where a reply says nothing of the kind.

    ``server`` names it, ``where`` says where its URL is written.
    """
    said = " ".join(str(error).split()).replace("; ", ", ")
    if isinstance(error, InvalidResponse) or _NO_REPLY.search(said):
        return _foreign(said, server, where)
    if isinstance(error, (AskError, MovedError)):
        said = f"MOVED {said}"  # redis-py leaves it out.
    for fault in _FAULTS:
        if fault.pattern.search(said):
            values = {"database": database, "said": said[:120], "where": where}
            fact, remedy = fault.fact.format(**values), fault.remedy.format(**values)
            return f"{server} {fact}; {remedy}"
    return ""


def is_unfit(error: BaseException) -> bool:
    """Whether a reply is of a server that cannot be used, whatever is asked of it."""
    return bool(find_fault(error, "", 0, ""))


def _foreign(said: str, server: str, where: str) -> str:
    found = _NO_REPLY.search(said)
    begins = found[1] if found else said[:60]
    if any(mark in begins for mark in _TLS_ALERT):
        return f"{server} speaks TLS, and the URL does not say so; write rediss://"
    hint = "".join(_guesses(begins))
    return (
        f"{server} is no Redis: what listens there says something else ({begins}"
        f"{hint}); correct {where}"
    )


def _guesses(begins: str) -> Iterator[str]:
    first = begins.lstrip("b'\"")
    if first.startswith("H"):
        yield ", as HTTP does"
    elif first.startswith("S"):
        yield ", as SSH does"
