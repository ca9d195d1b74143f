"""A simulated fleet that the real ``consider`` steers, hours in a moment.

Streams send requests, workers pull them below the limits that control sets, launchers
make control's wishes true, and the store takes wishes and memory only from the newest
controller. Whatever is random comes from one seed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random
from typing import Any

from modelserver.inventory import Host
from modelserver.measured import Canary, Sample
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, EngineState, ModelSpec, Wish
from tests.scenarios.engine import CANARY_CROWD, Fault, Request, SimEngine
from tests.scenarios.slots import Slot, load_of, metrics_of
from tests.scenarios.store import Store
from tests.scenarios.traffic import Stream
from tests.scenarios.workers import Rest, Workers

#: Seconds between two looks of control and of the launchers; every second is a tick.
LOOK_SECONDS = 5.0
#: Seconds between two canaries of an empty engine that nobody asked for.
IDLE_CANARY_SECONDS = 30.0
#: Seconds between two rounds of canaries where the first one failed.
CANARY_PAUSE_SECONDS = 8.0
#: Seconds after which the requests of a dead worker run again.
LEASE_SECONDS = 5.0
#: The share of its deviation that a wavering engine keeps from look to look.
WAVER_KEPT = 0.95
#: The standard deviation of healthy engines' speeds, as a share of the mean.
ENGINE_SPREAD = 0.03


@dataclass
class Fleet:
    """Hosts, models, streams, and everything that happened."""

    hosts: list[Host]
    models: tuple[ModelSpec, ...]
    streams: list[Stream]
    seed: int
    load_seconds: float = 60.0
    speeds: dict[str, float] = field(default_factory=lambda: {"fast": 1.0, "slow": 2.0})
    token_counter: bool = True
    late_prompts: bool = False
    waver: float = 0.0
    quadratic: float = 0.0
    now: float = 1000.0
    slots: dict[str, Slot] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    control_until: float = 0.0
    most_down: int = 0

    def __post_init__(self) -> None:
        self.random = self.arrivals = Random(self.seed)
        self.workers = Workers(self.slots, self.random)
        self.counts = self.workers.counts
        self._events: list[tuple[float, int, Any, int]] = []
        self._number = 0
        self._requeued: list[tuple[float, Request]] = []
        self._look_at = self.now
        for stream in self.streams:
            self._arrive_later(stream)

    # Time.

    def run(self, seconds: float) -> None:
        """Let this number of seconds pass."""
        end = self.now + seconds
        events = self._events
        while True:
            upto = min(end, self._look_at)
            while events and events[0][0] <= upto:
                at, _, what, version = heappop(events)
                if what.version != version:
                    continue
                self.now = at
                if isinstance(what, Slot):
                    self._engine_event(what)
                elif isinstance(what, Rest):
                    self._try_again(what.request)
                else:
                    self._arrival(what)
            self.now = upto
            if upto < self._look_at:
                return
            self._look()
            self._look_at += LOOK_SECONDS

    def _later(self, at: float, what: Any) -> None:
        self._number += 1
        heappush(self._events, (at, self._number, what, what.version))

    def _reschedule(self, slot: Slot) -> None:
        slot.version += 1
        at = slot.sim.next_event()
        if at < float("inf"):
            self._later(max(at, self.now), slot)

    # Requests.

    def _arrive_later(self, stream: Stream) -> None:
        gap = stream.gap(self.arrivals, self.now)
        if gap < float("inf"):
            self._later(self.now + gap, stream)

    def _arrival(self, stream: Stream) -> None:
        for _ in range(stream.burst):
            self.counts["sent"] += 1
            request = stream.request(self.arrivals, self.counts["sent"])
            request.sent = self.now
            self._dispatch(request)
        self._arrive_later(stream)

    def send(self, request: Request) -> None:
        """Send one request now."""
        self.counts["sent"] += 1
        self._dispatch(request)

    def change(self, stream: Stream, **values: Any) -> None:
        """Change a stream now."""
        for name, value in values.items():
            setattr(stream, name, value)
        stream.version += 1
        self._arrive_later(stream)

    def _dispatch(self, request: Request, first: bool = False) -> None:
        slot = self.workers.find_engine(request)
        if slot is None:
            self.workers.enqueue(request, first)
        else:
            self._begin(slot, request)

    def _begin(self, slot: Slot, request: Request) -> None:
        request.began = self.now
        request.inflight = len(slot.inflight)
        request.admitted = slot.admitted
        self.workers.begin(slot, request)
        if not self.late_prompts:
            slot.admitted += request.prompt
        slot.inflight[request.id] = request
        was_in_chunk = slot.sim.chunk
        slot.sim.submit(request, self.now)
        if not was_in_chunk:
            self._reschedule(slot)

    def _pull(self, slot: Slot) -> None:
        while slot.room > 0 and (request := self.workers.find_request(slot)):
            self._begin(slot, request)

    def _engine_event(self, slot: Slot) -> None:
        for request in slot.sim.happen(self.now):
            self._end(slot, request)
        self._reschedule(slot)
        self._pull(slot)

    def _end(self, slot: Slot, request: Request) -> None:
        del slot.inflight[request.id]
        if self.late_prompts:
            slot.admitted += request.prompt
        self.workers.now = self.now
        outcome, wait = self.workers.end(slot, request)
        slot.samples.appendleft(
            Sample(
                engine=slot.report.id,
                incarnation=slot.report.incarnation,
                ended_at=self.now,
                seconds=self.now - request.began,
                prompt_tokens=request.prompt,
                completion_tokens=request.completion,
                inflight_start=request.inflight,
                inflight_end=len(slot.inflight),
                prompt_admitted=slot.admitted - request.admitted,
                outcome=outcome,
            )
        )
        if wait is not None:
            self.workers.resting += 1
            self._later(self.now + wait, Rest(request))

    def _try_again(self, request: Request) -> None:
        self.workers.resting -= 1
        self._dispatch(request, first=True)

    def _give_back(self, slot: Slot, why: str) -> list[Request]:
        """The engine stops all its requests; they have to run again."""
        slot.sim.advance(self.now)
        had = slot.sim.clear()
        slot.inflight.clear()
        self._reschedule(slot)
        self.counts[why] += len(had)
        return had

    # Launchers.

    def _launch(self) -> None:
        for name, wish in self.store.wishes.items():
            slot = self.slots.get(name)
            if slot is None:
                slot = self.slots[name] = self._new_slot(name, wish)
            elif wish.relaunch >= slot.report.incarnation:
                self._requeue(self._give_back(slot, "aborted"))
                self._start(slot)
            if slot.report.state is EngineState.STARTING and self.now >= slot.ready_at:
                self._ready(slot)
            self._obey(slot, wish)

    def _new_slot(self, name: str, wish: Wish) -> Slot:
        host = next(each for each in self.hosts if each.name == wish.spec.host)
        gpu = next((g.name for g in host.gpus if g.uuid in wish.spec.uuids), "fast")
        spread = min(1.1, max(0.9, self.random.gauss(1.0, ENGINE_SPREAD)))
        sim = SimEngine(name, wish.spec.model, self.speeds[gpu] * spread, self.random)
        sim.at, sim.quadratic = self.now, self.quadratic
        report = EngineReport(
            name, wish.spec.model, wish.spec.host, EngineState.STARTING, 1
        )
        most = next(m.max_running for m in self.models if m.name == report.model)
        slot = Slot(sim, replace(report, since=self.now), most)
        slot.ready_at = self.now + self.load_seconds
        return slot

    def _start(self, slot: Slot) -> None:
        slot.report = replace(
            slot.report,
            state=EngineState.STARTING,
            incarnation=slot.report.incarnation + 1,
            since=self.now,
        )
        slot.ready_at = self.now + self.load_seconds
        if not slot.sim.fault.sticky:
            slot.sim.fault = Fault()

    def _ready(self, slot: Slot) -> None:
        slot.report = replace(
            slot.report, state=EngineState.READY, since=self.now, alive_at=self.now
        )
        slot.answered_at = slot.sim.tokens_at = slot.canary_at = self.now
        self._canaries(slot, 0)

    def _obey(self, slot: Slot, wish: Wish) -> None:
        most = next(m.max_running for m in self.models if m.name == slot.report.model)
        slot.limit, slot.held = min(wish.limit or most, most), bool(wish.hold)
        report, sim = slot.report, slot.sim
        if wish.abort == report.incarnation and slot.inflight:
            self._requeue(self._give_back(slot, "aborted"))
        if report.serves and not sim.fault.hang and not slot.inflight:
            since = self.now - slot.canary_at
            if wish.canary > slot.canary_done:
                if since >= CANARY_PAUSE_SECONDS or slot.canary_asked != wish.canary:
                    slot.canary_asked = wish.canary
                    over = self._canaries(slot, wish.canary)
                    slot.canary_done = wish.canary if over else slot.canary_done
            elif since >= IDLE_CANARY_SECONDS:
                slot.canary_at = self.now
                if not self._fails(slot, 1):
                    self._canary(slot, 1, 0)
        if report.serves and (not sim.fault.hang):
            state = EngineState.DEGRADED if wish.degraded else EngineState.READY
            slot.report = replace(report, state=state, alive_at=self.now)

    def _canaries(self, slot: Slot, number: int) -> bool:
        """A round; whether it is over: after one that fails another one follows."""
        slot.canary_at = self.now
        if self._fails(slot, 3 + CANARY_CROWD):
            return False
        for _ in range(3):
            self._canary(slot, 1, number)
        self._canary(slot, CANARY_CROWD, number)
        return True

    def _fails(self, slot: Slot, requests: int) -> bool:
        """Whether an engine with errors fails at one of so many requests."""
        errors = slot.sim.fault.errors
        return errors > 0 and self.random.random() > (1 - errors) ** requests

    def _canary(self, slot: Slot, crowd: int, number: int) -> None:
        slot.canary_at = self.now
        slot.sim.at = self.now
        took = slot.sim.canary(crowd)
        if took < float("inf"):
            report = slot.report
            slot.canaries.appendleft(
                Canary(report.id, report.incarnation, self.now, took, crowd > 1, number)
            )

    def _requeue(self, requests: Iterable[Request]) -> None:
        requests = list(requests)
        self.workers.call_off(requests)
        for request in requests:
            self._dispatch(request, first=True)

    # Control.

    def _look(self) -> None:
        late = [each for each in self._requeued if each[0] <= self.now]
        self._requeued = [each for each in self._requeued if each[0] > self.now]
        self._requeue(request for _, request in late)
        for slot in self.slots.values():
            if not slot.sim.chunk:
                slot.sim.advance(self.now)
            self._waver(slot.sim)
            self._reschedule(slot)
            if slot.worker_until and self.now >= slot.worker_until:
                slot.worker_until = 0.0
        self._launch()
        if self.now >= self.control_until:
            self.store.steer(snapshot_of(self), self.now)
        self._launch()
        self.workers.look()
        for slot in self.slots.values():
            self._pull(slot)
        held = sum(
            bool(wish.hold) or not self.slots[name].report.serves
            for name, wish in self.store.wishes.items()
            if self.slots[name].report.incarnation > 1 or wish.hold
        )
        self.most_down = max(self.most_down, held)

    def _waver(self, sim: SimEngine) -> None:
        """Its speed goes up and down a little, over a minute or two."""
        if self.waver:
            kept = math.log(sim.drift) * WAVER_KEPT
            step = self.waver * math.sqrt(1 - WAVER_KEPT**2)
            sim.drift = math.exp(kept + self.random.gauss(0.0, step))

    # Faults.

    def break_engine(self, name: str, **values: Any) -> None:
        """Switch a fault on now."""
        slot = self.slots[name]
        slot.sim.advance(self.now)
        slot.sim.fault = Fault(began=self.now, **values)
        self._reschedule(slot)

    def kill_worker(self, host: str, back_after: float = 10.0) -> int:
        """A worker dies; its leases end later. Returns how many requests it had."""
        lost: list[Request] = []
        for slot in self.slots.values():
            if slot.report.host == host:
                slot.worker_until = self.now + back_after
                lost += self._give_back(slot, "lost with a worker")
        self._requeued += [(self.now + LEASE_SECONDS, each) for each in lost]
        return len(lost)

    def restart_control(self, after: float) -> None:
        """The controller dies; the next one knows only what was stored."""
        self.control_until = self.now + after
        self.store.restart()

    # What happened.

    @property
    def pending(self) -> int:
        """Requests that wait or run."""
        running = sum(len(slot.inflight) for slot in self.slots.values())
        return running + self.workers.waiting + len(self._requeued)

    def lost(self) -> int:
        """Requests that nobody has and nobody answered."""
        answered = self.counts["done"] - self.counts["done twice"]
        failed = self.counts["own faults"] + self.counts["given up"]
        return self.counts["sent"] - answered - failed - self.pending


def snapshot_of(fleet: Fleet) -> Snapshot:
    """What control reads from the store."""
    slots = fleet.slots
    return Snapshot(
        specs=fleet.models,
        pins=(),
        hosts=tuple(fleet.hosts),
        engines={name: slot.report for name, slot in slots.items()},
        wishes=dict(fleet.store.wishes),
        loads={name: load_of(slot, fleet.now) for name, slot in slots.items()},
        samples={name: tuple(slot.samples) for name, slot in slots.items()},
        metrics={
            name: metrics_of(slot, fleet.token_counter)
            for name, slot in slots.items()
            if slot.report.serves and (fleet.token_counter or not slot.sim.fault.hang)
        },
        canaries={name: tuple(slot.canaries) for name, slot in slots.items()},
        memory=fleet.store.memory,
    )
