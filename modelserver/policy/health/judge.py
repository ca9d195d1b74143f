"""One look at all engines: what is found, what follows, what is remembered. Pure.

The verdicts are in ``verdicts``, what follows from them in ``health``; here they meet
the snapshot. Verdicts count every ten seconds and limits move every five, however often
control looks.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from modelserver.policy.actions import Action, Alert, Relaunch
from modelserver.policy.health import criteria
from modelserver.policy.health.blame import SHARED, is_its_own, last_canaries
from modelserver.policy.health.case import EngineCase, Findings
from modelserver.policy.health.guards import Guard
from modelserver.policy.health.learning import (
    Typical,
    baselines,
    slowdown,
    with_canaries,
    with_samples,
)
from modelserver.policy.health.levels import trusted, with_levels, with_wander
from modelserver.policy.health.limits import Flow, next_limit, target_seconds
from modelserver.policy.health.memory import EngineMemory, HealthMemory
from modelserver.policy.health.moves import advance
from modelserver.policy.health.observation import Observation, remembered, sights_of
from modelserver.policy.health.use import treatment, wished
from modelserver.policy.health.verdicts import (
    Common,
    Errors,
    Slow,
    SlowCanary,
    SpeedResidual,
    Verdict,
)
from modelserver.policy.rolling import Budget
from modelserver.policy.snapshot import Snapshot
from modelserver.values import EngineReport, EngineState, Outcome

#: Verdicts are made so often, and limits moved so often, in seconds.
TICK_SECONDS, LIMIT_SECONDS = 10.0, 5.0
#: A look may come a little early for a tick.
EARLY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Control:
    """What to do about the engines, what to remember, and the verdicts of this look."""

    actions: tuple[Action, ...] = ()
    memory: HealthMemory = field(default_factory=HealthMemory)
    verdicts: tuple[Verdict, ...] = ()


def control(
    snapshot: Snapshot,
    memory: HealthMemory,
    budget: Budget,
    hung: Mapping[str, str],
    busy: Collection[str],
    now: float,
) -> Control:
    """Judge the engines and decide about them.

    ``hung`` are engines without a sign of life, with the reason; ``busy`` those about
    which something else has been decided. Decides nothing about engines that are not
    where they are wanted, or whose launcher is away.
    """
    sights = sights_of(snapshot, busy)
    return _Look(snapshot, memory, budget, sights, hung, now).decide()


class _Look:
    """One look; lives as long as a call of ``control``."""

    def __init__(
        self,
        snapshot: Snapshot,
        memory: HealthMemory,
        budget: Budget,
        sights: Mapping[str, Observation],
        hung: Mapping[str, str],
        now: float,
    ) -> None:
        self.snapshot, self.memory, self.now = snapshot, memory, now
        self.hung = hung
        self.tick = now - memory.judged_at >= TICK_SECONDS - EARLY_SECONDS
        self.sights = sights
        self.guard = Guard.of(snapshot, budget, memory.models, now)
        self.types = memory.types
        self.engines: dict[str, EngineMemory] = remembered(
            memory, snapshot, self.sights, now
        )
        if self.tick:
            self._note_shared()
        self.typical = Typical(self.engines, self.sights)
        self.trusted = trusted(self.sights, self.engines)
        self.failures = self._failures() if self.tick else {}
        self.failed_of_model: dict[str, tuple[int, int]] = {}
        for name, (failed, requests) in self.failures.items():
            model = self.sights[name].spec.name
            more = self.failed_of_model.get(model, (0, 0))
            self.failed_of_model[model] = (more[0] + failed, more[1] + requests)
        self.found: list[Verdict] = []
        self.actions: list[Action] = []

    def _note_shared(self) -> None:
        for name, sight in self.sights.items():
            if sight.crowd >= SHARED:
                self.engines[name] = replace(self.engines[name], shared_at=self.now)

    def decide(self) -> Control:
        standings = self._standings() if self.tick else {}
        commons = self._commons(standings)
        findings = {
            name: self._findings(sight, standings, commons)
            for name, sight in self.sights.items()
        }
        for name in sorted(self.sights):
            self._advance(name, findings[name])
        if self.tick:
            self._learn(standings, commons)
        limited_at = self._limit()
        self._treat()
        judged_at = self.now if self.tick else self.memory.judged_at
        memory = HealthMemory(
            self.engines, self.types, self.guard.models, judged_at, limited_at
        )
        return Control(tuple(self.actions), memory, tuple(self.found))

    def _standings(self) -> dict[str, SpeedResidual]:
        """Of the engines that serve, by the fit of their type."""
        found = {}
        for name, sight in self.sights.items():
            own, kind = self.engines[name], self.types.get(sight.type)
            if kind is None or kind.fit is None or own.health.is_held:
                continue
            standing = criteria.standing(
                sight.fresh(own),
                kind.fit,
                own.offset or 0.0,
                sight.spec.max_running,
                self.now,
            )
            if standing:
                found[name] = standing
        return found

    def _commons(self, standings: Mapping[str, SpeedResidual]) -> dict[str, Common]:
        """The models that are slow altogether; tells people when that begins."""
        found: dict[str, Common] = {}
        if not self.tick:
            return found
        for model, old in list(self.guard.models.items()):
            # A fit that is still in the making proves nothing against all of them.
            of_model = [
                standing
                for name, standing in standings.items()
                if self.sights[name].spec.name == model and self._is_fitted(name)
            ]
            verdict = criteria.common(model, of_model)
            if verdict:
                found[model] = verdict
                self.found.append(verdict)
                if not old.common:
                    self.actions.append(Alert(model, verdict.text))
                    self.guard.models[model] = replace(old, common=verdict.text)
            elif old.common and not criteria.common(model, of_model, criteria.SLOW):
                self.guard.models[model] = replace(old, common="")
        return found

    def _is_fitted(self, name: str) -> bool:
        return self.types[self.sights[name].type].frozen

    def _findings(
        self,
        sight: Observation,
        standings: Mapping[str, SpeedResidual],
        commons: Mapping[str, Common],
    ) -> Findings:
        name, report = sight.report.id, sight.report
        own = self.engines[name]
        load = self.snapshot.loads.get(name)
        inflight = load.inflight if load else 0
        found = Findings(self.tick, hung=self._hang(sight), inflight=inflight)
        if own.health.is_held:
            took = slowdown(sight, self.engines, self.typical)
            return replace(found, slowdown=took)
        if not self.tick or not report.serves:
            return found
        slow: Slow | SlowCanary | None = None
        if sight.spec.name not in commons:
            peers = self.trusted[sight.spec.name]
            slow = criteria.slow(report, standings, peers, self._wander(sight))
            slow = slow or self._slow_canary(sight)
            slow = slow if slow and self._is_its_own(sight, slow) else None
        errors = self._errors(sight)
        self.found += [each for each in (slow, errors) if each]
        return replace(found, standing=standings.get(name), slow=slow, errors=errors)

    def _hang(self, sight: Observation) -> str:
        report = sight.report
        if report.id in self.hung:
            return self.hung[report.id]
        if not report.serves:
            return ""
        kind = self.types.get(sight.type)
        verdict = criteria.hang(
            report,
            self.snapshot.loads.get(report.id),
            self.snapshot.metrics.get(report.id),
            sight.samples,
            kind.fit if kind else None,
            self.now,
        )
        if verdict is None:
            return ""
        self.found.append(verdict)
        return verdict.text

    def _slow_canary(self, sight: Observation) -> SlowCanary | None:
        own = self.engines[sight.report.id]
        baseline, _ = baselines(sight, self.engines, self.typical)
        since = own.shared_at
        canaries = [each for each in sight.own(own.fresh_from) if each.at > since]
        return criteria.slow_canary(
            sight.report, canaries, baseline, self.now, self._wander(sight)
        )

    def _wander(self, sight: Observation) -> float:
        kind = self.types.get(sight.type)
        return kind.wander if kind else 0.0

    def _is_its_own(self, sight: Observation, found: Slow | SlowCanary) -> bool:
        last = list(last_canaries(sight, self.engines, self.sights, self.now))
        return is_its_own(found, last, sight.crowd)

    def _errors(self, sight: Observation) -> Errors | None:
        name, model = sight.report.id, sight.spec.name
        own, all_of_model = self.failures[name], self.failed_of_model[model]
        peers = (all_of_model[0] - own[0], all_of_model[1] - own[1])
        return criteria.errors(name, sight.report.incarnation, own, peers)

    def _failures(self) -> dict[str, tuple[int, int]]:
        """Requests that failed, and all, by engine."""
        return {
            name: criteria.failures(sight.fresh(self.engines[name]), self.now)
            for name, sight in self.sights.items()
        }

    def _advance(self, name: str, found: Findings) -> None:
        sight, own = self.sights[name], self.engines[name]
        move = advance(EngineCase(sight, own, found, self.guard, self.now))
        self.engines[name] = move.memory
        incarnation = sight.report.incarnation
        if move.relaunch:
            self.actions.append(
                Relaunch(name, incarnation, move.relaunch, move.memory.cause)
            )
        if move.alert:
            self.actions.append(Alert(name, move.alert))
        self._time_start(sight.report)

    def _time_start(self, report: EngineReport) -> None:
        """Learn how long a load takes, from the reports' own times."""
        own = self.engines[report.id]
        if report.state is EngineState.STARTING:
            self.engines[report.id] = replace(own, starting_since=report.since)
        elif report.serves and own.starting_since:
            model = self.guard.models[report.model]
            seconds = max(0.0, report.since - own.starting_since)
            self.guard.models[report.model] = replace(model, load_seconds=seconds)
            self.engines[report.id] = replace(own, starting_since=0.0)

    def _learn(
        self, standings: Mapping[str, SpeedResidual], commons: Mapping[str, Common]
    ) -> None:
        serving = {k: s for k, s in self.sights.items() if s.report.serves}
        before, now = self.engines, self.now
        engines = with_canaries(serving, before, now)
        calm = [spec.name for spec in self.snapshot.specs if spec.name not in commons]
        engines, types = with_samples(serving, engines, self.types, calm, now)
        teachers = {k: s for k, s in serving.items() if s.spec.name in calm}
        new = {
            name: standing
            for name, standing in standings.items()
            if name in teachers and engines[name].seen_at > before[name].seen_at
        }
        engines, types = with_wander(teachers, engines, types, new, now)
        self.engines = dict(with_levels(teachers, engines, types, new, now))
        self.types = types

    def _limit(self) -> float:
        """Move the limits of engines that give an account of themselves."""
        last = self.memory.limited_at
        since = max(last, self.now - 2 * LIMIT_SECONDS)
        if self.now - last < LIMIT_SECONDS - EARLY_SECONDS:
            return last
        typical = Typical(self.engines, self.sights)
        for name, sight in self.sights.items():
            own, metrics = self.engines[name], self.snapshot.metrics.get(name)
            if metrics is None or own.health.is_held or not sight.report.serves:
                continue
            failures = sum(
                each.outcome is Outcome.ENGINE_FAULT and each.ended_at > since
                for each in sight.fresh(own)
            )
            load = self.snapshot.loads.get(name)
            flow = Flow(metrics, load.inflight if load else 0, failures)
            most = sight.spec.max_running
            target = target_seconds(baselines(sight, self.engines, typical)[0])
            limit = next_limit(own.limit or most, flow, most, target)
            self.engines[name] = replace(own, limit=0.0 if limit == most else limit)
        return self.now

    def _treat(self) -> None:
        """Wishes for the engines that are to be used in another way than they are."""
        for name in sorted(self.sights):
            sight, own = self.sights[name], self.engines[name]
            wish = self.snapshot.wishes[name]
            treat = treatment(sight, own, self.now)
            if treat != wished(treat, wish):
                quiet = bool(treat.hold) == bool(wish.hold)
                quiet = quiet and treat.degraded == wish.degraded
                reason = "" if quiet else own.reason or "control trusts it again"
                self.actions.append(replace(treat, reason=reason))
