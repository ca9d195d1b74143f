"""How often people are told what a model's engines have in common. Pure.

What comes and goes is told three times when it begins, and then only after it has
stayed away for a while.
"""

from dataclasses import replace

from modelserver.policy.health.memory import Announced, ModelMemory

#: Most times that people are told of something that comes and goes.
MOST_TIMES = 3
#: Seconds for which it has to stay away to be told again.
CALM_SECONDS = 900.0


def stands(old: Announced, now: float, begins: bool) -> tuple[Announced, bool]:
    """It is so now; what to remember, and whether people are told if it ``begins``."""
    times = 0 if now - old.seen_at >= CALM_SECONDS else old.times
    if not begins:
        return replace(old, times=times, seen_at=now), False
    return Announced(min(times, MOST_TIMES) + 1, now), times < MOST_TIMES


def with_stutter(old: ModelMemory, text: str, now: float) -> tuple[ModelMemory, bool]:
    """A model whose engines stutter together, "" for not; whether people are told."""
    told, is_told = old.stutter_told, False
    if text:
        told, is_told = stands(told, now, begins=not old.stutter)
    return replace(old, stutter=text, stutter_told=told), is_told


def comes_and_goes(old: Announced, now: float) -> bool:
    """Whether it was told often enough, and has not stayed away for long."""
    return old.times >= MOST_TIMES and now - old.seen_at < CALM_SECONDS
