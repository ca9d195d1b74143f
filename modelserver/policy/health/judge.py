"""One look at all engines: what is found, what follows, what is remembered. Pure.

Verdicts are found by ``speed``, ``tail``, ``failures``, ``silence`` and ``canaries``;
``transitions`` says what follows from them; here both meet the snapshot.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from modelserver.policy.actions import Action, Alert, Relaunch
from modelserver.policy.health.blame import (
    NOW_SECONDS,
    SHARED,
    is_its_own,
    last_canaries,
)
from modelserver.policy.health.canaries import (
    CANARY_SECONDS,
    TypicalCanaries,
    baselines,
    canary_slowdown,
    find_slow_canary,
    with_canaries,
)
from modelserver.policy.health.case import EngineCase, Findings
from modelserver.policy.health.common_cause import find_common_cause, known_speeds
from modelserver.policy.health.counting import with_tallies
from modelserver.policy.health.failing_together import (
    count_failing,
    is_found,
    with_failing,
)
from modelserver.policy.health.failures import Failures
from modelserver.policy.health.guards import Guard
from modelserver.policy.health.learning import (
    trusted_by_model,
    with_levels,
    with_samples,
    with_wander,
)
from modelserver.policy.health.limits import Flow, next_limit
from modelserver.policy.health.memory import EngineMemory, HealthMemory
from modelserver.policy.health.observation import (
    Observation,
    observations_of,
    remembered,
)
from modelserver.policy.health.restrictions import treatment_due, treatment_in_force
from modelserver.policy.health.shared_verification import (
    Alike,
    find_verified,
    with_others,
)
from modelserver.policy.health.silence import find_hang
from modelserver.policy.health.speed import find_slow, speed_of, track_of
from modelserver.policy.health.tail import Tail
from modelserver.policy.health.telling import with_stutter
from modelserver.policy.health.transitions import advance
from modelserver.policy.health.type_baselines import with_type_baselines
from modelserver.policy.health.verdicts import (
    AnySlow,
    SlowCanary,
    SlowTogether,
    SpeedResidual,
    Stutter,
    StutterTogether,
    Track,
    Verdict,
)
from modelserver.policy.rolling import Budget
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, EngineState

#: Seconds between two ticks, the looks at which verdicts are made.
TICK_SECONDS = 10.0
#: Seconds between two looks at which limits are moved.
LIMIT_SECONDS = 5.0
#: A look that is early by 0.1 seconds counts as due.
EARLY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do about the engines, what to remember, and the verdicts of this look."""

    actions: tuple[Action, ...] = ()
    memory: HealthMemory = field(default_factory=HealthMemory)
    verdicts: tuple[Verdict, ...] = ()


def judge(
    snapshot: Snapshot,
    memory: HealthMemory,
    budget: Budget,
    hung: Mapping[str, str],
    busy: Collection[str],
    now: float,
) -> Judgement:
    """Judge the engines and decide about them.

    ``hung`` has the engines without a sign of life, each with the reason; ``busy`` has
    those about which something else has been decided. Decides nothing about engines
    that are not where they are wanted, or whose launcher is away.
    """
    observations = observations_of(snapshot, busy)
    return _Judge(snapshot, memory, budget, observations, hung, now).decide()


class _Judge:
    """One look; lives as long as a call of ``judge``."""

    def __init__(
        self,
        snapshot: Snapshot,
        memory: HealthMemory,
        budget: Budget,
        observations: Mapping[str, Observation],
        hung: Mapping[str, str],
        now: float,
    ) -> None:
        self.snapshot, self.memory, self.now = snapshot, memory, now
        self.hung = hung
        self.tick = now - memory.judged_at >= TICK_SECONDS - EARLY_SECONDS
        self.observations = observations
        self.guard = Guard.of(snapshot, budget, memory.models, now)
        self.types = memory.types
        self.engines: dict[str, EngineMemory] = remembered(
            memory, snapshot, self.observations, now
        )
        if self.tick:
            self._note_shared()
            self.engines = with_tallies(
                observations, self.engines, self.types, now - memory.judged_at, now
            )
        self.typical = TypicalCanaries(self.engines, self.observations, self.types)
        self.trusted = trusted_by_model(self.observations, self.engines)
        self.tail = Tail(observations, self.engines, self.types, self.trusted, now)
        self.failures = Failures(
            self.observations if self.tick else {}, self.engines, now
        )
        self.tracks: dict[str, Track] = {}
        self.found: list[Verdict] = []
        self.actions: list[Action] = []

    def _note_shared(self) -> None:
        for name, observation in self.observations.items():
            if observation.host_busy >= SHARED:
                self.engines[name] = replace(self.engines[name], shared_at=self.now)

    def decide(self) -> Judgement:
        speeds = self._find_speeds() if self.tick else {}
        self.stuttering = self._find_stutter_together()
        slow_together = self._find_common_causes(speeds)
        findings = {
            name: self._findings(observation, speeds)
            for name, observation in self.observations.items()
        }
        for name in sorted(self.observations):
            self._advance(name, findings[name], speeds)
        if self.tick:
            self._learn(speeds, slow_together)
            self._tell_of_failing()
        limited_at = self._limit()
        self._treat()
        judged_at = self.now if self.tick else self.memory.judged_at
        memory = HealthMemory(
            self.engines, self.types, self.guard.models, judged_at, limited_at
        )
        return Judgement(tuple(self.actions), memory, tuple(self.found))

    def _find_speeds(self) -> dict[str, SpeedResidual]:
        """How fast the serving engines are, by the fits of their types."""
        found = {}
        for name, observation in self.observations.items():
            own, kind = self.engines[name], self.types.get(observation.type)
            if kind is None or kind.fit is None or own.health.is_held:
                continue
            track = self.tracks[name] = track_of(
                observation.fresh_samples(own),
                kind.fit,
                (own.offset or 0.0) + own.accepted,
                observation.spec.max_running,
                self.now,
            )
            speed = speed_of(track, kind.fit.sigma, self.now)
            if speed:
                found[name] = speed
        return found

    def _find_common_causes(
        self, speeds: Mapping[str, SpeedResidual]
    ) -> dict[str, SlowTogether]:
        """The models whose engines are slow together; an alert when that begins.

        Those that stutter together are slow off and on for that.
        """
        found: dict[str, SlowTogether] = {}
        if not self.tick:
            return found
        known = known_speeds(
            self.observations, self.engines, speeds, self.types, self.now
        )
        for model, old in list(self.guard.models.items()):
            if model in self.stuttering:
                continue
            all_known = known.get(model, ())
            verdict, new, told = find_common_cause(model, all_known, old, self.now)
            self.guard.models[model] = new
            if verdict:
                found[model] = verdict
                self.found.append(verdict)
                self.actions += [Alert(model, verdict.text)] if told else []
        return found

    def _find_stutter_together(self) -> dict[str, StutterTogether]:
        """The models whose engines stutter together; an alert when that begins."""
        if not self.tick:
            return {}
        found, models = self.tail.find_together(self.guard.models), self.guard.models
        self.found += found.values()
        for model, old in models.items():
            text = found[model].text if model in found else ""
            models[model], told = with_stutter(old, text, self.now)
            self.actions += [Alert(model, text)] if told else []
        return dict(found)

    def _findings(
        self, observation: Observation, speeds: Mapping[str, SpeedResidual]
    ) -> Findings:
        name, report = observation.report.id, observation.report
        own = self.engines[name]
        load = self.snapshot.loads.get(name)
        inflight = load.inflight if load else 0
        hung = self._hung_reason(observation)
        common = self.guard.models[observation.spec.name].common_residual
        found = Findings(self.tick, hung=hung, inflight=inflight, common=common)
        if own.health.is_held:
            took = canary_slowdown(observation, self.engines, self.typical)
            verified = find_verified(self._alike(name))
            return replace(found, slowdown=took, verified=verified)
        if not self.tick or not report.serves:
            return found
        slow = self._find_slow(observation, speeds)
        slow = slow if slow and self._is_its_own(observation, slow) else None
        errors = self.failures.find_errors_of(observation)
        self.found += [each for each in (slow, errors) if each]
        return replace(found, speed=speeds.get(name), slow=slow, errors=errors)

    def _hung_reason(self, observation: Observation) -> str:
        """Why an engine counts as hung, "" where it does not."""
        report = observation.report
        if report.id in self.hung:
            return self.hung[report.id]
        if not report.serves:
            return ""
        kind = self.types.get(observation.type)
        verdict = find_hang(
            report,
            self.snapshot.loads.get(report.id),
            self.snapshot.metrics.get(report.id),
            observation.samples,
            kind.fit if kind else None,
            self.now,
        )
        if verdict is None:
            return ""
        self.found.append(verdict)
        return verdict.text

    def _find_slow(
        self, observation: Observation, speeds: Mapping[str, SpeedResidual]
    ) -> AnySlow | None:
        report, model = observation.report, observation.spec.name
        if model in self.stuttering:
            return None
        tail = self.tail.find(observation)
        if isinstance(tail, Stutter):
            return tail
        own, wander = self.engines[report.id], self._wander(observation)
        slow = find_slow(report, speeds, self.trusted[model], wander, self.tracks)
        # Without peers, a fit that is not frozen is no measure yet; canaries are.
        if slow and (slow.peers or self.types[observation.type].frozen):
            return replace(slow, accepted=own.accepted)
        return self._find_slow_canary(observation) or tail

    def _find_slow_canary(self, observation: Observation) -> SlowCanary | None:
        if observation.on_processors:
            return None  # Others use them too, and a canary takes but a moment.
        own = self.engines[observation.report.id]
        baseline, _ = baselines(observation, self.engines, self.typical)
        canaries = observation.own_canaries(own.fresh_from)
        return find_slow_canary(
            observation.report, canaries, baseline, self.now, self._wander(observation)
        )

    def _wander(self, observation: Observation) -> float:
        kind = self.types.get(observation.type)
        return kind.wander if kind else 0.0

    def _is_its_own(self, observation: Observation, found: AnySlow) -> bool:
        age = CANARY_SECONDS if isinstance(found, SlowCanary) else NOW_SECONDS
        seen = (self.engines, self.observations, self.now, age)
        last = list(last_canaries(observation, *seen))
        common = self.guard.models[observation.spec.name].common_residual
        return is_its_own(found, last, observation.host_busy, common)

    def _advance(
        self, name: str, found: Findings, speeds: Mapping[str, SpeedResidual]
    ) -> None:
        observation, own = self.observations[name], self.engines[name]
        found = with_others(name, found, self._alike(name), speeds, self.now)
        move = advance(EngineCase(observation, own, found, self.guard, self.now))
        self.engines[name] = move.memory
        incarnation = observation.report.incarnation
        if move.relaunch:
            self.actions.append(
                Relaunch(name, incarnation, move.relaunch, move.memory.cause)
            )
        if move.alert:
            self.actions.append(Alert(name, move.alert))
        self._time_start(observation.report)

    def _alike(self, name: str) -> Alike:
        """The engines of its model, and how many of them may be down at once."""
        model = self.observations[name].spec.name
        names = [k for k, s in self.observations.items() if s.spec.name == model]
        return names, self.engines, self.guard.budget.most_down(model)

    def _time_start(self, report: EngineReport) -> None:
        """Learn how long a start takes, by the times in the reports."""
        own = self.engines[report.id]
        if report.state is EngineState.STARTING:
            self.engines[report.id] = replace(own, starting_since=report.since)
        elif report.serves and own.starting_since:
            model = self.guard.models[report.model]
            seconds = max(0.0, report.since - own.starting_since)
            self.guard.models[report.model] = replace(model, load_seconds=seconds)
            self.engines[report.id] = replace(own, starting_since=0.0)

    def _learn(
        self,
        speeds: Mapping[str, SpeedResidual],
        slow_together: Mapping[str, SlowTogether],
    ) -> None:
        serving = {k: s for k, s in self.observations.items() if s.report.serves}
        before, now = self.engines, self.now
        engines = with_canaries(serving, before, now, self.types)
        self.types = with_type_baselines(serving, before, engines, self.types)
        troubled = {*slow_together, *self.stuttering}
        calm = [s.name for s in self.snapshot.specs if s.name not in troubled]
        engines, types = with_samples(serving, engines, self.types, calm, now)
        teachers = {k: s for k, s in serving.items() if s.spec.name in calm}
        new = {
            name: speed
            for name, speed in speeds.items()
            if name in teachers and engines[name].seen_at > before[name].seen_at
        }
        engines, types = with_wander(teachers, engines, types, new, self.tracks, now)
        self.engines = dict(with_levels(teachers, engines, types, new, now))
        self.types = types

    def _tell_of_failing(self) -> None:
        """Tell people when requests of a model begin and end to fail everywhere."""
        engines, models = self.engines, self.guard.models
        for failing in count_failing(models, self.observations, engines, self.now):
            self.found += [failing] if is_found(failing) else []
            model = failing.model
            models[model], told = with_failing(models[model], failing, self.now)
            self.actions += [Alert(model, told)] if told else []

    def _limit(self) -> float:
        """Move limits by the metrics; returns when that was last done."""
        last = self.memory.limited_at
        if self.now - last < LIMIT_SECONDS - EARLY_SECONDS:
            return last
        for name, observation in self.observations.items():
            own, metrics = self.engines[name], self.snapshot.metrics.get(name)
            if metrics is None or own.health.is_held or not observation.report.serves:
                continue
            load = self.snapshot.loads.get(name)
            fails = any(own.error_ticks[-1:])
            flow = Flow(metrics, load.inflight if load else 0, fails)
            most = observation.report.capacity or observation.spec.max_running
            target = observation.spec.itl_seconds
            limit = next_limit(own.limit or most, flow, most, target)
            self.engines[name] = replace(own, limit=0.0 if limit == most else limit)
        return self.now

    def _treat(self) -> None:
        """Change the wishes of engines whose health asks for another treatment."""
        for name in sorted(self.observations):
            observation, own = self.observations[name], self.engines[name]
            wish = self.snapshot.wishes[name]
            treat = treatment_due(observation, own, self.now)
            if treat != treatment_in_force(treat, wish):
                held_as_before = bool(treat.hold) == bool(wish.hold)
                is_minor = held_as_before and treat.degraded == wish.degraded
                reason = "" if is_minor else own.reason or "control trusts it again"
                self.actions.append(replace(treat, reason=reason))
