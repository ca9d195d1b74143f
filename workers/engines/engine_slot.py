"""One engine as a worker sees it: what is in flight on it, and whether it gets more."""

import asyncio
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field

from modelserver.values import EngineReport
from workers.engines.failures import (
    RECENT_REQUESTS,
    EngineRecord,
    FailedRequest,
)

#: How long an engine that broke a connection gets no requests the first time, in
#: seconds; twice as long each further time in a row.
FIRST_SUSPICION_SECONDS = 1.0
#: The longest time that a suspected engine gets no requests, in seconds.
LONGEST_SUSPICION_SECONDS = 30.0
#: An engine that failed at so many requests in a row is suspected too, if there is
#: another one: it fails faster than others work, and would draw all requests to itself.
FAULTS_IN_A_ROW = 5
#: Engines are not suspected where as many requests in a row fail by their own fault, as
#: far as chance goes, likelier than this.
LEAST_RUN_CHANCE = 1e-6


@dataclass(slots=True)
class EngineSlot:
    """One engine as this worker sees it. Times are of the monotonic clock."""

    engine: EngineReport
    #: When this incarnation was first seen.
    seen_at: float
    #: Whether it gets requests of this worker, worked out once: each request looks.
    is_given_work: bool = field(init=False)
    #: How many requests this worker may have on it.
    share: int = field(init=False)
    #: Requests of the host's other workers on it, as they said last.
    inflight_of_others: int = 0
    #: By number: when each request in flight began, the oldest first.
    started: "OrderedDict[int, float]" = field(default_factory=OrderedDict)
    #: Prompt tokens of all requests so far: the difference over a request's life is
    #: what the engine had to prefill meanwhile.
    admitted: int = 0
    #: Those of this worker's requests.
    own_admitted: int = 0
    #: When a request last finished well, 0 before the first.
    finished_at: float = 0.0
    #: When a probe that was answered last had begun, 0 before the first.
    probed_at: float = 0.0
    #: Until when it gets no requests because it is suspected.
    suspect_until: float = 0.0
    #: How often it was suspected in a row.
    suspicions: int = 0
    #: Requests in a row that it failed at, of those that failed together one.
    faults: "deque[FailedRequest]" = field(
        default_factory=lambda: deque(maxlen=RECENT_REQUESTS)
    )
    #: Whether it is suspected because of these.
    is_suspected_for_faults: bool = False
    #: When it last failed at a request that counted.
    fault_at: float = 0.0
    #: When it was last suspected.
    suspected_at: float = 0.0
    #: The number of the last request that began.
    sequence: int = 0
    #: When the last request began.
    began_at: float = 0.0
    #: Requests on it that may have killed an engine.
    suspects: int = 0
    #: One for each request that can be called off the engine.
    timeouts: set[asyncio.Timeout] = field(default_factory=set)
    #: How its last requests ended.
    record: EngineRecord = field(init=False)
    #: By the dimensions asked for: how many vectors of each length it gave.
    lengths: defaultdict[str, Counter[int]] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def __post_init__(self) -> None:
        self.follow(self.engine)
        self.record = EngineRecord((self.engine.id, self.engine.incarnation))

    def follow(self, engine: EngineReport, share: int | None = None) -> None:
        """Take over what its launcher reports of it now; no ``share`` is all of it."""
        self.engine = engine
        self.share = engine.limit if share is None else min(share, engine.limit)
        self.is_given_work = engine.is_given_work and share != 0

    @property
    def inflight(self) -> int:
        """Requests of this worker on the engine."""
        return len(self.started)

    def admit(self, tokens: int) -> None:
        """Count the prompt tokens of a request of this worker."""
        self.admitted += tokens
        self.own_admitted += tokens

    def begin(self, now: float) -> int:
        """Count a request in; returns its number."""
        self.sequence += 1
        self.started[self.sequence] = self.began_at = now
        return self.sequence

    def end(self, number: int, now: float, well: bool) -> None:
        """Count a request out."""
        began = self.started.pop(number, now)
        if well:
            self.finished_at = now
            self.suspicions = 0
            self.faults.clear()
            self.record.note_answer(began)

    def note_probe(self, began: float) -> None:
        """It has answered a probe, which is no request of anybody's."""
        self.probed_at = max(self.probed_at, began)
        self.record.note_probe(began)

    def suspect(self, now: float, began: float) -> None:
        """Give the engine no requests for a while: it broke a connection, or fails.

        What broke together is one event: a request that ``began`` before the engine was
        last suspected says nothing new.
        """
        if began <= self.suspected_at:
            return
        self.suspected_at = now
        self.is_suspected_for_faults = False
        seconds = FIRST_SUSPICION_SECONDS * 2**self.suspicions
        self.suspect_until = now + min(LONGEST_SUSPICION_SECONDS, seconds)
        self.suspicions = min(self.suspicions + 1, 16)

    def take_back(self, mark: FailedRequest) -> None:
        """A request proved to be at fault itself: no reason to suspect the engine."""
        if mark not in self.faults:
            return
        self.faults.remove(mark)
        if self.is_suspected_for_faults and len(self.faults) < FAULTS_IN_A_ROW:
            self.suspect_until, self.is_suspected_for_faults = 0.0, False
            self.suspicions = max(0, self.suspicions - 1)

    def usable(self, now: float) -> bool:
        """Whether the engine may get requests."""
        return self.is_given_work and now >= self.suspect_until

    def call_off(self) -> None:
        """End this worker's requests on the engine; they run elsewhere."""
        timeouts, self.timeouts = self.timeouts, set()
        for timeout in timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())
