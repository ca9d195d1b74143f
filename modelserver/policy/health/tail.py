"""What the tallies of all engines show at one look: stutters, slow kinds. Pure."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

from modelserver.policy.health.bands import (
    find_slow_band,
    is_of,
    is_slow_somewhere,
    late_by_kind,
    without_kind,
)
from modelserver.policy.health.cost_model import Fit
from modelserver.policy.health.learning import rows_of
from modelserver.policy.health.memory import (
    EngineMemory,
    Health,
    ModelMemory,
    TypeMemory,
)
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import WELL
from modelserver.policy.health.stutter import find_stutter, find_stutter_together
from modelserver.policy.health.tallies import Tallies, size_of
from modelserver.policy.health.verdicts import SlowBand, Stutter, StutterTogether

#: Of an engine that stutters, and is well in between, a fifth of the requests is well;
#: where the quickest are not the engine is slow, whatever waits behind them.
WELL_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Tail:
    """All engines at one look."""

    observations: Mapping[str, Observation]
    engines: Mapping[str, EngineMemory]
    types: Mapping[str, TypeMemory]
    #: The engines that nobody suspects, by model.
    trusted: Mapping[str, Collection[str]]
    now: float

    def find(self, observation: Observation) -> Stutter | SlowBand | None:
        """The verdict on one engine; where both fit, it stutters."""
        own = self.engines[observation.report.id]
        kind = self.types.get(observation.type)
        seems_well = not own.tallies.pauses and not is_slow_somewhere(own.tallies)
        if kind is None or not kind.frozen or kind.fit is None:
            return None  # Nothing has been counted by it.
        # Accepted: slow for some requests. Others that wait for these are late, too.
        if seems_well or own.accepted:
            return None
        report, peers = observation.report, list(self._peers(observation))
        band = find_slow_band(
            report, own.tallies, peers, kind.fit.sigma, kind.wander, self.now
        )
        others = own.tallies
        if band:
            others = without_kind(others, band)
            now = _residual_of_late(observation, own, kind.fit, band)
            is_known = band.long == own.slow_kind
            band = replace(band, residual=max(band.residual, now))
            band = None if is_known else band
        if others.pauses and late_by_kind(own.tallies):
            return band
        known = own.health is Health.DEGRADED and bool(own.stuttered)
        stutter = find_stutter(report, others, peers, self.now, known)
        if stutter and _is_well_in_between(observation, own, kind.fit):
            return stutter
        return band

    def find_together(
        self, models: Mapping[str, ModelMemory]
    ) -> dict[str, StutterTogether]:
        """The models whose engines stutter together."""
        tallies: dict[str, list[Tallies]] = {model: [] for model in models}
        for name, observation in self.observations.items():
            own = self.engines[name]
            if not own.health.is_held:
                tallies[observation.spec.name].append(own.tallies)
        found = {
            model: find_stutter_together(model, tallies[model], bool(memory.stutter))
            for model, memory in models.items()
            if not memory.common  # Where all are slow, all requests are late.
        }
        return {model: verdict for model, verdict in found.items() if verdict}

    def _peers(self, observation: Observation) -> Iterator[Tallies]:
        """The tallies of the engine's trusted peers."""
        for name in self.trusted[observation.spec.name]:
            if name != observation.report.id:
                yield self.engines[name].tallies


def _is_well_in_between(observation: Observation, own: EngineMemory, fit: Fit) -> bool:
    """Whether some of its last requests took no longer than they should."""
    logs = sorted(fit.log_ratio(each) for each in rows_of(observation, own))
    if not logs:
        return True
    quick = logs[int(WELL_SHARE * len(logs))] - (own.offset or 0.0)
    return quick < math.log(WELL)


def _residual_of_late(
    observation: Observation, own: EngineMemory, fit: Fit, band: SlowBand
) -> float:
    """How slow the last requests of a kind were; tallies are of minutes."""
    logs = [
        fit.log_ratio(each)
        for each in rows_of(observation, own)
        if is_of((band.long, band.tokens), size_of(each[0], each[1]))
    ]
    return median(logs) - (own.offset or 0.0) if logs else 0.0
