"""One run over the fleet: what the view shows, what is remembered, what is decided."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from modelserver.policy.placement.needs import Need
from modelserver.policy.rebalance.ledger import moved
from modelserver.policy.rebalance.measuring import capacity, peak_rate, rate
from modelserver.policy.rebalance.pressure import Pressure
from modelserver.policy.rebalance.state import (
    EngineView,
    GpuMove,
    Meter,
    PastMove,
    Reason,
    RebalanceMemory,
    RebalanceRules,
    RebalanceView,
)
from modelserver.policy.rebalance.timetable import Lead, find_due_window
from modelserver.schedules import ScheduledWindow
from modelserver.values import EXTERNAL, EngineState, engine_id, split_engine_id

#: Numbers change from tick to tick where nothing else does.
_NUMBER = re.compile(r"\d+(\.\d+)?")
#: Seconds for which a move is remembered after it was decided.
PAST_SECONDS = 14_400.0


class RebalanceScene:
    """The fleet as it is to be: ``meters``, ``moves`` and ``reasons`` are filled."""

    def __init__(
        self,
        view: RebalanceView,
        memory: RebalanceMemory,
        rules: RebalanceRules,
        now: float,
    ) -> None:
        self.view, self.rules, self.now = view, rules, now
        self.models = {
            each.spec.name: each for each in view.models if each.spec.engine != EXTERNAL
        }
        self.engines = {each.id: each for each in view.engines}
        self.pins: defaultdict[str, list[str]] = defaultdict(list)
        for pin in view.pins:
            self.pins[pin.model].append(pin.id)
        self.moves = [move for move in memory.moves if move.model in self.models]
        self.past = [each for each in memory.past if now - each.at <= PAST_SECONDS]
        self.reasons: list[Reason] = []
        self.meters: dict[str, Meter] = {}
        for name in self.models:
            self.meters[name] = self._adopted(name, memory.meters.get(name))
        self.windows = {name: self._find_window(name) for name in self.models}
        for name in self.models:
            self._clamp(name)

    def _adopted(self, name: str, meter: Meter | None) -> Meter:
        """What is remembered; of a model that is new here, what runs of it already."""
        if meter is not None:
            pinned = set(self.pins[name])
            return replace(meter, wanted=_sorted(set(meter.wanted) - pinned))
        ids = {
            each.id
            for each in self.view.engines
            if each.model == name and each.state is not EngineState.DRAINING
        }
        seen = sum(each.finished for each in self.of(name))
        wanted = _sorted(ids - set(self.pins[name]))
        return Meter(wanted=wanted, quiet_since=self.now, seen=seen)

    def _find_window(self, name: str) -> ScheduledWindow | None:
        """The window of its schedule that it needs engines for, in force or soon."""
        drain = max(each.spec.drain_seconds for each in self.models.values())
        lead = Lead(drain + self.load_seconds(name, ""), self.gpus_at_once)
        return find_due_window(self.models[name].spec, lead, self.rules, self.now)

    def _clamp(self, name: str) -> None:
        spec = self.models[name].spec
        while len(self.own(name)) < self.least(name):
            self.want(name, self.new_id(name))
        while len(self.own(name)) > spec.max_engines and self.meters[name].wanted:
            last = self.by_worth(name)[0]
            self.unwant(name, last)
            self.say(name, f"ends {last}: max_engines is {spec.max_engines}")

    # What is wanted.

    @property
    def by_rank(self) -> list[str]:
        """The models, those that go before others first."""
        return sorted(self.models, key=self._rank, reverse=True)

    def least(self, name: str) -> int:
        """How many engines it shall have whatever comes: by the file, or the clock."""
        spec, window = self.models[name].spec, self.windows[name]
        most = min(window.min_engines, spec.max_engines) if window else 0
        return max(spec.min_engines, most)

    def outranks(self, name: str, other: str) -> bool:
        """Whether it goes before another model."""
        return self._rank(name) > self._rank(other)

    def _rank(self, name: str) -> int:
        return self.models[name].spec.priority

    def own(self, name: str) -> list[str]:
        """The engines that the model shall have, pinned ones included."""
        return [*self.pins[name], *self.meters[name].wanted]

    def want(self, name: str, engine: str) -> None:
        """Have one more engine."""
        wanted = {*self.meters[name].wanted, engine}
        self.update(name, wanted=_sorted(wanted))

    def unwant(self, name: str, engine: str) -> None:
        """Have an engine no longer."""
        wanted = set(self.meters[name].wanted) - {engine}
        self.update(name, wanted=_sorted(wanted))

    def update(self, name: str, **values: object) -> None:
        """Change what is remembered of a model."""
        self.meters[name] = replace(self.meters[name], **values)  # type: ignore[arg-type]

    def say(self, name: str, what: str, **figures: float | str) -> None:
        """Give a reason, with its figures."""
        self.reasons.append(Reason(name, what, figures))

    def refuse(self, name: str, what: str, **figures: float | str) -> None:
        """Say why a model gets no more, unless that was said, but for its numbers."""
        refused = _NUMBER.sub("", what)
        if refused != self.meters[name].refused:
            self.say(name, what, **figures)
            self.update(name, refused=refused)

    def new_id(self, name: str) -> str:
        """The first number that no engine has, not even one that is ending."""
        taken = {*self.engines, *self.own(name), *(each.engine for each in self.moves)}
        number = len(self.pins[name])
        while engine_id(name, number) in taken:
            number += 1
        return engine_id(name, number)

    # What there is.

    def of(self, name: str) -> list[EngineView]:
        """Every engine of the model that has a wish or a report."""
        return [each for each in self.view.engines if each.model == name]

    def serving(self, name: str) -> list[EngineView]:
        """The engines that serve and are to stay."""
        own = set(self.own(name))
        return [each for each in self.of(name) if each.id in own and each.state.serves]

    def planned(self, name: str) -> set[str]:
        """The engines that serve or will: n, with those on their way."""
        own = {engine for engine in self.own(name) if self._comes(engine)}
        return own | {move.engine for move in self.moves if move.model == name}

    def _comes(self, engine: str) -> bool:
        view = self.engines.get(engine)
        if view is None or view.state is EngineState.DRAINING or view.failed:
            return False
        if view.state is EngineState.PENDING:
            need = self.need(view.model)
            return bool(view.host) and len(view.uuids) >= min(need.gpus, 1)
        return True

    def unplaced(self, name: str) -> list[str]:
        """The engines that are wanted and have no place."""
        planned = self.planned(name)
        views = ((each, self.engines.get(each)) for each in self.meters[name].wanted)
        return [
            engine
            for engine, view in views
            if engine not in planned
            and (view is None or view.state is EngineState.PENDING)
        ]

    def fails(self, name: str) -> bool:
        """Whether more of its engines died than serve: more of them would not help."""
        own = set(self.own(name))
        failed = sum(each.failed for each in self.of(name) if each.id in own)
        return failed > len(self.serving(name))

    def unmoved(self, name: str) -> int:
        """How many engines would serve had it given and taken none."""
        coming = sum(each.model == name and self.is_tried(each) for each in self.moves)
        return len(self.serving(name)) + coming - self.meters[name].ledger.gained

    def inflight(self, name: str) -> int:
        """Requests in flight on all its engines, also those that end."""
        return sum(each.inflight for each in self.of(name))

    def by_worth(self, name: str) -> list[str]:
        """Its engines without the pinned ones, first those that are missed least."""

        def worth(engine: str) -> tuple[int, int, int]:
            view = self.engines.get(engine)
            if view is None or view.failed:
                return (0, 0, -split_engine_id(engine)[1])
            return (1 + view.state.serves, view.inflight, -split_engine_id(engine)[1])

        return sorted(self.meters[name].wanted, key=worth)

    def need(self, name: str) -> Need:
        """What each engine of a model takes of a host."""
        model = self.models.get(name)
        return Need() if model is None else Need.of_model(model.spec)

    # How it goes.

    def pressure(self, name: str, engines: int, peak: bool = False) -> Pressure:
        """Its figures, had it so many engines; with ``peak``, λ as a donor has it."""
        meter = self.meters[name]
        arrivals = (peak_rate if peak else rate)(meter, self.rules)
        mu = capacity(meter, self.models[name]) or 0.0
        queue = self.models[name].waiting * (meter.request_work or 1.0)
        return Pressure(queue, arrivals, mu, engines)

    def quiet_seconds(self, name: str) -> float:
        """How long it has had nothing to do."""
        since = self.meters[name].quiet_since
        return 0.0 if since is None else self.now - since

    def load_seconds(self, name: str, host: str) -> float:
        """How long an engine takes from its start to its first token."""
        measured = self.meters[name].load_seconds
        if host in measured or not measured:
            return measured.get(host, self.models[name].load_seconds)
        return sum(measured.values()) / len(measured)

    def drain_seconds(self, engines: Iterable[EngineView]) -> float:
        """How long it takes until the last of these engines has ended."""
        return max((self._drain(engine) for engine in engines), default=0.0)

    def _drain(self, engine: EngineView) -> float:
        if not (engine.state.serves and engine.inflight):
            return 0.0
        measured = self.meters[engine.model].drain_seconds
        limit = self.models[engine.model].spec.drain_seconds
        return limit if measured is None else min(limit, measured)

    # Moves.

    def begin(self, move: GpuMove) -> None:
        """Remember a move; its donors end from now on."""
        self.moves.append(move)
        self.update(move.model, refused="")
        for engine in move.donors:
            self.unwant(self.engines[engine].model, engine)
        givers = dict.fromkeys(move.donor_models or ("",))
        self.past += [PastMove(self.now, giver, move.model) for giver in givers]
        if not move.donors:
            self.want(move.model, move.engine)
            self.come_home(move.model, 1)
        if not self.is_tried(move):
            return
        self._note(move.model, 1)
        for donor in move.donor_models:
            given = sum(self.engines[each].model == donor for each in move.donors)
            self._note(donor, -given)

    def is_tried(self, move: GpuMove) -> bool:
        """Whether a move might prove wrong; what rank decides cannot."""
        ranks = {self._rank(each) for each in move.donor_models if each in self.models}
        return ranks == {self._rank(move.model)}

    def give_up(self, move: GpuMove, why: str) -> None:
        """Say that a move comes to nothing."""
        self.say(move.model, f"gives up {move.engine}: {why}")
        if self.is_tried(move):
            self.come_home(move.model, -1)

    def come_home(self, name: str, engines: int) -> None:
        """Note an engine that came or went by itself, if moves had done the reverse."""
        if self.meters[name].ledger.gained * engines < 0:
            self._note(name, engines)

    def _note(self, name: str, engines: int) -> None:
        self.update(name, ledger=moved(self.meters[name].ledger, engines, self.now))

    @property
    def gpus_at_once(self) -> int:
        """How many GPUs of the fleet may move at once."""
        gpus = (gpu for host in self.view.hosts for gpu in host.gpus)
        total = sum(bool(gpu.total) and not gpu.left_out for gpu in gpus)
        return max(1, int(total * self.rules.moving_share))

    @property
    def moving_gpus(self) -> int:
        """The GPUs that are on their way from one model to another."""
        return sum(move.gpus for move in self.moves if move.donors)


def _sorted(engines: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(engines, key=lambda each: (split_engine_id(each)[1], each)))
