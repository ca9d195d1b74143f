"""Which engines the fleet wants, and on which GPUs of which host each of them belongs.

``needs`` says what an engine takes, ``rooms`` what hosts still have to give,
``reasons`` why an engine fits nowhere, ``planning`` brings them together.
"""

from modelserver.policy.placement.needs import EXTERNAL, Demand, Need
from modelserver.policy.placement.planning import Plan, place, plan
from modelserver.policy.placement.rooms import FREE_SHARE, GpuRoom, HostRoom

__all__ = [
    "EXTERNAL",
    "FREE_SHARE",
    "Demand",
    "GpuRoom",
    "HostRoom",
    "Need",
    "Plan",
    "place",
    "plan",
]
