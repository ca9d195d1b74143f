"""A world of several models and their queues that the real ``rebalance`` steers.

Requests come by chance (a seeded draw), wait, and are answered. A second is a step.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from modelserver.inventory import GpuProcess, Host
from modelserver.policy.placement.needs import Need, turns
from modelserver.policy.placement.rooms import HostRoom
from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.state import (
    EngineView,
    GpuMove,
    ModelView,
    RebalanceMemory,
    RebalanceOutcome,
    RebalanceRules,
    RebalanceView,
    from_json,
    to_json,
)
from modelserver.values import EngineState, Kind, ModelSpec
from tests.scenarios.moves_engine import SimulatedEngine
from tests.support import processes

#: Control looks this often; it measures every 30 s by itself.
LOOK_SECONDS = 10
#: Answers of a model from which control knows how large its requests are.
ANSWERED = 256

Load = Callable[[float], float]


def model(name: str, least: int, most: int, gpus: int = 1, **more: float) -> ModelSpec:
    """A model with at least and at most this number of engines."""
    return replace(
        ModelSpec(name, Kind.COMPLETION, "/m", "sglang", gpus=gpus),
        min_engines=least,
        max_engines=most,
        **more,  # type: ignore[arg-type]
    )


@dataclass
class World:
    """Models, hosts, and what has happened so far."""

    specs: Sequence[ModelSpec]
    #: Requests per second of each model.
    loads: dict[str, Load]
    #: The number of engines that each model has at the beginning.
    start: dict[str, int]
    seed: int = 0
    #: (time, model, requests)
    bursts: Sequence[tuple[float, str, int]] = ()
    hosts: tuple[Host, ...] = (Host("h", processes.gpus(8)),)
    load_seconds: float = 90.0
    #: False leaves all engines where they are.
    steers: bool = True
    #: How many times longer a request of a model takes.
    sizes: dict[str, Load] = field(default_factory=dict)
    #: False lets control count requests instead of weighing them.
    knows_sizes: bool = True
    rules: RebalanceRules = field(default_factory=RebalanceRules)
    now: float = 0.0
    memory: RebalanceMemory = field(default_factory=RebalanceMemory)
    engines: dict[str, SimulatedEngine] = field(default_factory=dict)
    moves: list[GpuMove] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    ended: list[tuple[float, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    #: The fewest engines that each model was to have.
    lowest: dict[str, int] = field(default_factory=dict)
    said: list[tuple[float, str]] = field(default_factory=list)
    arrived: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    waited_seconds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Start with engines that are ready."""
        self.queues: dict[str, deque[list[float]]] = {
            spec.name: deque() for spec in self.specs
        }
        self.answered: dict[str, deque[float]] = {
            spec.name: deque(maxlen=ANSWERED) for spec in self.specs
        }
        self.by_name = {spec.name: spec for spec in self.specs}
        self.counters: Counter[str] = Counter()
        self.chance = random.Random(self.seed)
        for spec in self.specs:
            for number in range(self.start[spec.name]):
                self._place(f"{spec.name}-{number}", spec.name, "", ())
        for engine in self.engines.values():
            engine.ready_at = 0.0
        self.starts.clear()

    def run(self, seconds: float) -> "World":
        """Let this number of seconds pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            self._arrive()
            self._live()
            if self.steers and self.now % LOOK_SECONDS == 0:
                self._steer()
        return self

    def lose(self, host: str) -> None:
        """A host goes, and its engines with it; their requests wait again."""
        self.hosts = tuple(each for each in self.hosts if each.name != host)
        for engine in [each for each in self.engines.values() if each.host == host]:
            back = [self.now, engine.inflight, engine.size]
            self.queues[engine.model].appendleft(back)
            del self.engines[engine.id]

    # Requests.

    def _arrive(self) -> None:
        for name, load in self.loads.items():
            self._enqueue(name, self._draw(load(self.now)))
        for at, name, count in self.bursts:
            if at == self.now:
                self._enqueue(name, count)

    def _draw(self, mean: float) -> int:
        """A number of arrivals in one second."""
        if mean <= 0:
            return 0
        limit, number, product = math.exp(-mean), 0, self.chance.random()
        while product > limit:
            number += 1
            product *= self.chance.random()
        return number

    def _enqueue(self, name: str, count: int) -> None:
        if count:
            self.arrived[name] += count
            size = self.sizes[name](self.now) if name in self.sizes else 1.0
            self.queues[name].append([self.now, count, size])

    def waiting(self, name: str) -> int:
        """Requests in the queue."""
        return int(sum(count for _, count, _ in self.queues[name]))

    def _take(self, engine: SimulatedEngine, room: int) -> None:
        queue, taken = self.queues[engine.model], 0
        while queue and taken < room:
            at, count, size = queue[0]
            number = min(int(count), room - taken)
            waited = number * (self.now - at)
            self.waited_seconds[engine.model] += waited  # type: ignore[assignment]
            taken += number
            engine.take(number, size)
            queue[0][1] -= number
            if not queue[0][1]:
                queue.popleft()

    # Engines.

    def _live(self) -> None:
        for engine in list(self.engines.values()):
            before = engine.finished
            engine.work()
            self.counters[engine.id] += engine.finished - before
            self.finished[engine.model] += engine.finished - before
            sizes = [engine.size] * (engine.finished - before)
            self.answered[engine.model].extend(sizes)
            if engine.state is EngineState.STARTING and self.now >= engine.ready_at:
                engine.state = EngineState.READY
            if engine.state is EngineState.DRAINING and not engine.inflight:
                del self.engines[engine.id]
            elif self.now >= engine.drained_at:
                # What it has not finished goes back to its queue.
                back = [self.now, engine.inflight, engine.size]
                self.queues[engine.model].appendleft(back)
                del self.engines[engine.id]
        serving = [each for each in self.engines.values() if each.state.serves]
        for engine in sorted(serving, key=lambda each: each.inflight):
            peers = [each for each in serving if each.model == engine.model]
            most = self.by_name[engine.model].max_running
            share = math.ceil(self.waiting_room(peers, most) / len(peers))
            self._take(engine, min(most - engine.inflight, max(1, share)))

    def waiting_room(self, peers: Sequence[SimulatedEngine], most: int) -> int:
        """How many of the waiting requests these engines can take now."""
        free = sum(most - each.inflight for each in peers)
        return min(free, self.waiting(peers[0].model))

    def _need(self, name: str) -> Need:
        spec = self.by_name[name]
        return Need.of_model(spec)

    def shown_hosts(self) -> tuple[Host, ...]:
        """The hosts as launchers report them, with what engines hold of each GPU."""
        held: dict[str, list[SimulatedEngine]] = {}
        for engine in self.engines.values():
            for uuid in engine.uuids:
                held.setdefault(uuid, []).append(engine)
        shown = []
        for host in self.hosts:
            gpus = []
            for gpu in host.gpus:
                mine = [
                    GpuProcess(1, self._need(e.model).each or gpu.total, engine=e.id)
                    for e in held.get(gpu.uuid, ())
                ]
                used = sum(process.used for process in mine)
                free = gpu.total - used
                if free < 0:
                    self.broken.append(f"{self.now:.0f}: {gpu.uuid} is full")
                gpus.append(
                    replace(gpu, used=used, free=max(0, free), processes=tuple(mine))
                )
            shown.append(replace(host, gpus=tuple(gpus)))
        return tuple(shown)

    def _place(self, engine: str, name: str, host: str, uuids: tuple[str, ...]) -> None:
        need = self._need(name)
        for each in self.shown_hosts():
            if host and each.name != host:
                continue
            room = HostRoom(each)
            for other in self.engines.values():
                if other.host == each.name:
                    room.claim(other.id, self._need(other.model), other.uuids)
            fit = room.find_offer(need)
            chosen = uuids or (fit.uuids if fit else None)
            if chosen is None:
                continue
            if not all(gpu.fits(need, engine) for gpu in room.find(chosen)):
                self.broken.append(f"{self.now:.0f}: {engine} starts where others are")
            ready = self.now + self.load_seconds
            self.engines[engine] = SimulatedEngine(
                engine, name, each.name, chosen, ready
            )
            self.starts[name] += 1
            return

    # Control.

    def view(self) -> RebalanceView:
        """What control sees."""
        engines = tuple(
            EngineView(
                each.id,
                each.model,
                each.host,
                each.state,
                each.uuids,
                each.inflight,
                float(self.counters[each.id]),
            )
            for each in self.engines.values()
        )
        models = tuple(
            ModelView(
                spec,
                self.waiting(spec.name),
                self._usual_size(spec.name),
                self.load_seconds,
            )
            for spec in self.specs
        )
        return RebalanceView(models, engines, self.shown_hosts())

    def _usual_size(self, name: str) -> float | None:
        known = self.answered[name] if self.knows_sizes else ()
        return fmean(known) if known else None

    def _steer(self) -> None:
        outcome = rebalance(self.view(), self.memory, self.rules, self.now)
        known = {(move.at, move.engine) for move in self.memory.moves}
        for move in outcome.memory.moves:
            if (move.at, move.engine) not in known:
                self.moves.append(move)
        # It must live through the store.
        self.memory = from_json(to_json(outcome.memory))
        self.said += [(self.now, str(reason)) for reason in outcome.reasons]
        self._check(outcome)
        self._obey(outcome)

    def _obey(self, outcome: RebalanceOutcome) -> None:
        wanted = {each.id: each for each in outcome.wanted}
        for engine in self.engines.values():
            ending = engine.state is EngineState.DRAINING
            if engine.id not in wanted and not ending:
                engine.state = EngineState.DRAINING
                limit = self.by_name[engine.model].drain_seconds
                engine.drained_at = self.now + limit
                self.ended.append((self.now, engine.id))
        first = turns(wanted.values(), self.by_name, outcome.minimums)
        for want in sorted(wanted.values(), key=lambda each: first[each.id]):
            if want.id not in self.engines:
                self._place(want.id, want.model, want.host, want.uuids)

    def _check(self, outcome: RebalanceOutcome) -> None:
        counts = Counter(each.model for each in outcome.wanted)
        for spec in self.specs:
            low = self.lowest.get(spec.name, spec.max_engines)
            self.lowest[spec.name] = min(low, counts[spec.name])
            if not spec.min_engines <= counts[spec.name] <= spec.max_engines:
                self.broken.append(
                    f"{self.now:.0f}: {counts[spec.name]} engines of {spec.name}"
                )

    # What came of it.

    @property
    def donations(self) -> list[GpuMove]:
        """The moves from one model to another."""
        return [move for move in self.moves if move.donors]

    def reversals(self, within_seconds: float = 900.0) -> int:
        """Moves that undo another within this number of seconds."""
        return sum(
            earlier.model in later.donor_models and later.model in earlier.donor_models
            for place, later in enumerate(self.donations)
            for earlier in self.donations[:place]
            if later.at - earlier.at < within_seconds
        )

    def turns(self) -> int:
        """Moves in the other direction than the one before of the same models."""
        last: dict[frozenset[str], str] = {}
        found = 0
        for move in self.donations:
            for donor in move.donor_models:
                pair = frozenset({donor, move.model})
                found += last.get(pair, move.model) != move.model
                last[pair] = move.model
        return found

    def mean_wait(self) -> float:
        """Seconds that a request waited for an engine, or waits still."""
        total, number = sum(self.waited_seconds.values()), sum(self.arrived.values())
        for queue in self.queues.values():
            total += sum(count * (self.now - at) for at, count, _ in queue)  # type: ignore[misc]
        return total / number if number else 0.0

    def lost(self) -> int:
        """Requests that are neither answered nor waiting nor in flight."""
        held = sum(engine.inflight for engine in self.engines.values())
        held += sum(self.waiting(name) for name in self.queues)
        return sum(self.arrived.values()) - sum(self.finished.values()) - held
