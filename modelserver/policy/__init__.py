"""Decisions as pure functions of values: no clock, no randomness, no Redis, no system.

``decide`` is the entry; ``placement`` says which engines the fleet wants, and where.
"""

from modelserver.policy.decide import Decision, Rules, apply, consider, decide

__all__ = ["Decision", "Rules", "apply", "consider", "decide"]
