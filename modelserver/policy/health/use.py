"""How an engine is to be used, from where control stands with it. Pure."""

from dataclasses import replace

from modelserver.policy.actions import Treat
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.observation import Observation
from modelserver.values import ModelSpec, Wish

#: The first part of its limit in probation, which doubles so often, in seconds.
PROBATION_PART, PROBATION_SECONDS = 0.25, 15.0


def probation_part(memory: EngineMemory, now: float) -> float:
    """The part of its limit that an engine on probation gets, up to 1."""
    doublings = max(0.0, now - memory.since) // PROBATION_SECONDS
    part: float = PROBATION_PART * 2.0 ** min(doublings, 10)
    return min(1.0, part)


def limit_now(memory: EngineMemory, spec: ModelSpec, now: float) -> int:
    """How many requests an engine may have, 0 for what its model says."""
    part = 1.0
    if memory.health is Health.PROBATION:
        part = probation_part(memory, now)
    elif memory.health is Health.DEGRADED:
        part = 1 / max(1.0, memory.slowdown)
    if part == 1.0 and not memory.limit:
        return 0
    limit = int(part * (memory.limit or spec.max_running) + 1e-9)
    return max(1, min(limit, spec.max_running))


def treatment(sight: Observation, own: EngineMemory, now: float) -> Treat:
    reason = own.reason or own.health.value
    return Treat(
        sight.report.id,
        own.incarnation,
        limit=limit_now(own, sight.spec, now),
        degraded=reason if own.health is Health.DEGRADED else "",
        hold=f"{own.health}: {reason}" if own.health.is_held else "",
        abort=own.incarnation if own.abort and own.health.is_held else 0,
        canary=own.round,
    )


def wished(treat: Treat, wish: Wish) -> Treat:
    return replace(
        treat,
        limit=wish.limit,
        degraded=wish.degraded,
        hold=wish.hold,
        abort=wish.abort,
        canary=wish.canary,
    )
