"""How many engines each model has, and which GPUs move from one model to another.

``rebalance`` is the entry. ``values`` are what goes in and out, ``measuring`` turns
counters into rates, ``pressure`` says what they mean, ``candidates`` where an engine
could be and who may end for it, ``transit`` how a move goes on, ``deciding`` when one
begins.
"""

from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.memory import from_json, to_json
from modelserver.policy.rebalance.state import (
    EngineView,
    Memory,
    Meter,
    ModelView,
    Move,
    Outcome,
    Past,
    Queue,
    Reason,
    Rules,
    View,
    Wanted,
    view_of,
)

__all__ = [
    "EngineView",
    "Memory",
    "Meter",
    "ModelView",
    "Move",
    "Outcome",
    "Past",
    "Queue",
    "Reason",
    "Rules",
    "View",
    "Wanted",
    "from_json",
    "rebalance",
    "to_json",
    "view_of",
]
