"""What an engine may do, by its health: its limit, hold, abort and canaries. Pure."""

from dataclasses import replace

from modelserver.policy.actions import Treat
from modelserver.policy.health.memory import EngineMemory, Health
from modelserver.policy.health.observation import Observation
from modelserver.values import ModelSpec, Wish

#: The part of its limit that an engine gets at the start of its probation.
PROBATION_PART = 0.25
#: Seconds after which that part doubles.
PROBATION_SECONDS = 15.0


def probation_part(memory: EngineMemory, now: float) -> float:
    """The part of its limit that an engine on probation gets, up to 1."""
    doublings = max(0.0, now - memory.since) // PROBATION_SECONDS
    part: float = PROBATION_PART * 2.0 ** min(doublings, 10)
    return min(1.0, part)


def limit_now(memory: EngineMemory, spec: ModelSpec, now: float) -> int:
    """Requests that an engine may have at once, 0 for its model's ``max_running``."""
    part = 1.0
    if memory.health is Health.PROBATION:
        part = probation_part(memory, now)
    elif memory.health is Health.DEGRADED and not memory.keeps_limit:
        part = 1 / max(1.0, memory.slowdown)
    if part == 1.0 and not memory.limit:
        return 0
    limit = int(part * (memory.limit or spec.max_running) + 1e-9)
    return max(1, min(limit, spec.max_running))


def treatment_due(observation: Observation, own: EngineMemory, now: float) -> Treat:
    """How an engine is to be treated from now on."""
    reason = own.reason or own.health.value
    return Treat(
        observation.report.id,
        own.incarnation,
        limit=limit_now(own, observation.spec, now),
        degraded=reason if own.health is Health.DEGRADED else "",
        hold=f"{own.health}: {reason}" if own.health.is_held else "",
        abort=own.incarnation if own.abort and own.health.is_held else 0,
        canary=own.round,
    )


def treatment_in_force(treat: Treat, wish: Wish) -> Treat:
    """The same action with what the engine's wish says already."""
    return replace(
        treat,
        limit=wish.limit,
        degraded=wish.degraded,
        hold=wish.hold,
        abort=wish.abort,
        canary=wish.canary,
    )
