"""Slow, sick or merely busy: verdicts on engines, each with its figures. Pure.

A verdict is a value; its text says in plain words what it was made from. The modules
that find what is wrong make them.
"""

import math
from dataclasses import dataclass
from statistics import median

#: When requests ended, each with its logarithm of measured over expected seconds.
Track = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class SpeedResidual:
    """What an engine's recent requests say of its speed."""

    #: The median logarithm of measured over expected seconds.
    residual: float
    #: Its standard error.
    error: float
    #: The number of requests that it was made from.
    requests: int
    #: Whether they are all of the last minute.
    is_recent: bool = True
    #: When each of them ended, with its logarithm of measured over expected seconds.
    points: Track = ()


@dataclass(frozen=True, slots=True)
class Slow:
    """An engine takes longer than its requests and its peers explain."""

    engine: str
    incarnation: int
    residual: float
    #: The median residual of its peers.
    peers_residual: float
    #: The standard error of the difference.
    error: float
    requests: int
    #: The number of its peers.
    peers: int
    #: How far engines of its type go up and down by themselves.
    wander: float = 0.0
    #: What is accepted of it, as canaries do not show it; the residual is beyond that.
    accepted: float = 0.0

    @property
    def text(self) -> str:
        """The verdict in words."""
        against = (
            f"its {self.peers} peers {_times(self.peers_residual)}"
            if self.peers
            else "no peers"
        )
        doubt = f"standard error {100 * self.error:.0f} %"
        if self.wander:
            doubt += f", engines here waver by {100 * self.wander:.0f} %"
        beyond = f" beyond {_times(self.accepted)}" if self.accepted else ""
        return (
            f"slow: takes {_times(self.residual)} of what its requests explain{beyond} "
            f"({against}; {self.requests} requests, {doubt})"
        )


@dataclass(frozen=True, slots=True)
class Errors:
    """An engine fails at more requests than chance and its peers explain."""

    engine: str
    incarnation: int
    failed: int
    requests: int
    #: The share that it surely fails at, 0 to 1.
    at_least: float
    #: The share that it may fail at.
    allowed: float
    #: Whether so many of its peers fail, too, that only their better half tells.
    of_many: bool = False

    @property
    def text(self) -> str:
        """The verdict in words."""
        many = ", by the better half of its peers" if self.of_many else ""
        return (
            f"errors: {self.failed} of {self.requests} requests failed, surely more "
            f"than {100 * self.at_least:.0f} %; allowed are {100 * self.allowed:.0f} %"
            f"{many}"
        )


@dataclass(frozen=True, slots=True)
class Hang:
    """An engine is silent for longer than its requests can explain."""

    engine: str
    incarnation: int
    silent_seconds: float
    allowed_seconds: float
    inflight: int
    #: What has not come: "token" or "answer".
    sign: str

    @property
    def text(self) -> str:
        """The verdict in words."""
        return (
            f"hung: no {self.sign} for {self.silent_seconds:.0f} s with "
            f"{self.inflight} in flight; {self.allowed_seconds:.0f} s can be explained"
        )


@dataclass(frozen=True, slots=True)
class SlowCanary:
    """An idle engine is slow at canaries, requests whose normal seconds are known."""

    engine: str
    incarnation: int
    #: What its last canaries took, newest first.
    seconds: tuple[float, ...]
    #: What a canary takes normally.
    baseline: float

    @property
    def ratio(self) -> float:
        """Its median canary over its baseline."""
        return median(self.seconds) / self.baseline

    @property
    def text(self) -> str:
        """The verdict in words."""
        took = ", ".join(f"{each:.2f}" for each in self.seconds)
        return f"slow canary: {took} s while idle; {self.baseline:.2f} s is normal"


@dataclass(frozen=True, slots=True)
class SlowTogether:
    """Most engines of a model are slow together, so none of them is to blame."""

    model: str
    residual: float
    #: The number of engines whose speed is known.
    engines: int
    #: How many of them are known by their idle canaries.
    idle: int = 0

    @property
    def text(self) -> str:
        """The verdict in words."""
        by = f" ({self.idle} by their canaries)" if self.idle else ""
        return (
            f"{self.engines} engines of {self.model} together take "
            f"{_times(self.residual)} of what their requests explain{by}: it is the "
            "load or the hosts, so none is relaunched"
        )


@dataclass(frozen=True, slots=True)
class FailingTogether:
    """Requests of a model fail on all its engines, so none of these is to blame."""

    model: str
    #: The requests that are at fault themselves.
    at_fault: int
    #: Those that an engine failed at, for whatever reason.
    failed: int
    requests: int

    @property
    def share(self) -> float:
        """The share of requests that fail, 0 to 1."""
        return (self.at_fault + self.failed) / max(1, self.requests)

    @property
    def text(self) -> str:
        """The verdict in words."""
        if self.at_fault >= self.failed:
            share = self.at_fault / max(1, self.requests - self.failed)
            return (
                f"{100 * share:.0f} % of the requests of {self.model} are at fault "
                "themselves, so no engine is relaunched; look at the failed results"
            )
        return (
            f"{100 * self.share:.0f} % of the requests of {self.model} fail, on no "
            "engine more than on others, so none is relaunched; look at the failed "
            "results and at the engines' logs"
        )


@dataclass(frozen=True, slots=True)
class Stutter:
    """An engine stands still again and again, and is well in between."""

    engine: str
    incarnation: int
    #: The share of its requests that were late, 0 to 1.
    late: float
    #: The share that surely is.
    at_least: float
    #: The share that may be.
    allowed: float
    requests: int
    #: The number of pauses that these show at least, of late.
    pauses: float
    #: The mean seconds by which one of them made a request late.
    pause_seconds: float
    #: The share of its time that it loses by them, as far as is known.
    lost: float
    peers: int
    #: The share of requests that were late on the better half of its peers.
    peers_late: float

    @property
    def residual(self) -> float:
        """The logarithm of how many times slower it is over minutes."""
        return -math.log(1 - min(0.9, self.lost))

    @property
    def text(self) -> str:
        """The verdict in words."""
        against = "no peers"
        if self.peers:
            against = f"its {self.peers} peers {100 * self.peers_late:.0f} %"
        return (
            f"stutters: stands still for {self.pause_seconds:.0f} s and more, again "
            f"and again, and is well in between: {100 * self.late:.0f} % of "
            f"{self.requests} requests were late ({against}), {100 * self.lost:.0f} % "
            "of its time is lost"
        )


@dataclass(frozen=True, slots=True)
class StutterTogether:
    """Most engines of a model stutter, so none of them is to blame."""

    model: str
    #: The share of requests that were late, 0 to 1.
    late: float
    #: The number of engines that it was made from.
    engines: int

    @property
    def text(self) -> str:
        """The verdict in words."""
        return (
            f"the {self.engines} engines of {self.model} stutter, "
            f"{100 * self.late:.0f} % of requests are late: it is what they share, a "
            "disk, a network or the hosts, so none is relaunched"
        )


@dataclass(frozen=True, slots=True)
class SlowBand:
    """An engine is slow for requests of a kind, and well for others."""

    engine: str
    incarnation: int
    #: What is long about these requests: "prompts" or "answers".
    long: str
    #: The tokens from which on they are.
    tokens: int
    #: The mean logarithm of measured over expected seconds; counts up to 3 times.
    residual: float
    #: That of its peers for such requests.
    peers_residual: float
    #: The standard error of the difference.
    error: float
    requests: int
    peers: int

    @property
    def text(self) -> str:
        """The verdict in words."""
        return (
            f"slow for {self.long} of {self.tokens:,} tokens and more: takes "
            f"{_times(self.residual)} of what these requests explain (its "
            f"{self.peers} peers {_times(self.peers_residual)}; {self.requests} such "
            f"requests, standard error {100 * self.error:.0f} %)"
        )


#: What an engine may be drained for by its speed.
AnySlow = Slow | SlowCanary | Stutter | SlowBand
#: What no single engine is to blame for.
Together = SlowTogether | StutterTogether | FailingTogether
Verdict = AnySlow | Errors | Hang | Together


def _times(residual: float) -> str:
    return f"{math.exp(residual):.2f}x"
