"""Canaries: requests whose normal seconds are known, and what they tell. Pure."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import median

from modelserver.measured import Canary
from modelserver.policy.health.memory import EngineMemory, TypeMemory
from modelserver.policy.health.observation import Observation
from modelserver.policy.health.speed import beyond_wander
from modelserver.policy.health.type_baselines import baseline_of_type
from modelserver.policy.health.verdicts import SlowCanary
from modelserver.values import EngineReport

#: Idle canaries that a baseline needs.
BASELINE_CANARIES = 3
#: The least seconds that a canary should take: milliseconds say more of the host.
LEAST_SECONDS = 0.02
#: A canary passes below 1.25 times its baseline.
PASSES = 1.25
#: A canary of 1.3 times the others of its type gives a new engine no baseline.
SUSPICIOUS = 1.3
#: What a loaded canary takes over an idle one, before any has been seen.
LOADED = 1.5
#: A canary is slow from 1.5 times its baseline.
CANARY_SLOW = 1.5
#: Canaries are a verdict when 2 of the last 3 were slow.
CANARY_MOST = 2
CANARY_LAST = 3
#: An engine stood still during a canary of 2 times its baseline and 2 seconds more.
PAUSE_TIMES = 2.0
PAUSE_SECONDS = 2.0
#: Canaries older than 600 seconds do not count.
CANARY_SECONDS = 600.0

Engines = Mapping[str, EngineMemory]
Observations = Mapping[str, Observation]
Types = Mapping[str, TypeMemory]
#: No type of engines.
NO_TYPES: Types = {}


class TypicalCanaries:
    """The baselines of each type's engines, and of those that it had earlier.

    They are sorted, so that a look at n engines costs n log n and not n².
    """

    def __init__(
        self, engines: Engines, observations: Observations, types: Types = NO_TYPES
    ) -> None:
        self._types = types
        self._known: defaultdict[tuple[str, bool], list[float]] = defaultdict(list)
        for name, observation in observations.items():
            self.note(observation, engines[name].baseline)
            self.note(observation, engines[name].loaded_baseline, loaded=True)

    def note(
        self, observation: Observation, seconds: float, loaded: bool = False
    ) -> None:
        """Add an engine's baseline; 0 for none."""
        if seconds:
            insort(self._known[observation.type, loaded], seconds)

    def of_others(
        self, observation: Observation, own: float, loaded: bool = False
    ) -> float:
        """The median of its type but for ``own``, its baseline; 0 without others.

        Where there are no others it is what is known of earlier ones.
        """
        values = self._known[observation.type, loaded]
        left_out = bisect_left(values, own) if own else len(values)
        others = len(values) - bool(own)
        if not others:
            return baseline_of_type(self._types, observation, loaded)
        low, high = (
            values[place + (place >= left_out)]
            for place in ((others - 1) // 2, others // 2)
        )
        return (low + high) / 2


def baselines(
    observation: Observation, engines: Engines, typical: TypicalCanaries
) -> tuple[float, float]:
    """What its idle and its loaded canary should take, in seconds; 0 where unknown.

    Its own baseline or the median of its type, whichever is more: its own may come from
    a moment in which it was faster than usual.
    """
    own = engines[observation.report.id]
    idle = max(own.baseline, typical.of_others(observation, own.baseline))
    others = typical.of_others(observation, own.loaded_baseline, loaded=True)
    return _beyond_noise(idle), _beyond_noise(max(own.loaded_baseline, others))


def _beyond_noise(seconds: float) -> float:
    return max(seconds, LEAST_SECONDS) if seconds else 0.0


def canary_slowdown(
    observation: Observation, engines: Engines, typical: TypicalCanaries
) -> float:
    """How many times their baselines its canaries take; 0 before all are back."""
    since = engines[observation.report.id].fresh_from
    idle, loaded = observation.idle_seconds(since), observation.loaded_seconds(since)
    if len(idle) < BASELINE_CANARIES or not loaded:
        return 0.0
    normal, normal_loaded = baselines(observation, engines, typical)
    if not normal:
        return 1.0
    took = median(idle[:BASELINE_CANARIES])
    return max(took / normal, loaded[0] / (normal_loaded or LOADED * normal))


def with_canaries(
    observations: Observations, engines: Engines, now: float, types: Types = NO_TYPES
) -> Engines:
    """The memories with new baselines, and with when canaries passed."""
    learned, typical = dict(engines), TypicalCanaries(engines, observations, types)
    for name in sorted(observations):
        observation, old = observations[name], learned[name]
        idle = observation.idle_seconds()
        if not idle or old.health.is_held:
            continue
        normal, normal_loaded = baselines(observation, learned, typical)
        new = old
        if not old.baseline and len(idle) >= BASELINE_CANARIES:
            took = median(idle[:BASELINE_CANARIES])
            if took < SUSPICIOUS * (normal or took):
                # A first baseline passes, whichever of its canaries came last.
                at = observation.own_canaries()[0].at
                new = replace(new, baseline=took, canary_passed_at=min(at, now))
                typical.note(observation, took)
        if (
            not old.loaded_baseline
            and new.baseline
            and (loaded := observation.loaded_seconds())
            and loaded[0] < SUSPICIOUS * (normal_loaded or loaded[0])
        ):
            new = replace(new, loaded_baseline=loaded[0])
            typical.note(observation, loaded[0], loaded=True)
        last = max(each.at for each in observation.own_canaries() if not each.loaded)
        if new.baseline and idle[0] < PASSES * max(normal, new.baseline):
            new = replace(new, canary_passed_at=min(last, now))
        learned[name] = new
    return learned


def find_slow_canary(
    engine: EngineReport,
    canaries: Iterable[Canary],
    baseline: float,
    now: float,
    wander: float = 0.0,
) -> SlowCanary | None:
    """The verdict that an engine's last idle canaries, newest first, are mostly slow.

    ``wander`` is how far engines of its type go up and down by themselves.
    """
    times = max(CANARY_SLOW, beyond_wander(wander))
    last = [
        each.seconds
        for each in canaries
        if each.incarnation == engine.incarnation
        and not each.loaded
        and now - each.at <= CANARY_SECONDS
    ][:CANARY_LAST]
    slow_ones = [each for each in last if each >= times * baseline]
    if not baseline or len(slow_ones) < CANARY_MOST:
        return None
    passed = min(last) < PASSES * baseline
    if passed and min(slow_ones) >= PAUSE_TIMES * baseline + PAUSE_SECONDS:
        return None  # It stood still and is well in between, which tallies tell.
    return SlowCanary(engine.id, engine.incarnation, tuple(last), baseline)
