"""Whether GPUs may turn: go back to a model that gave them, or further away again.

Engines that come back to where they were before any move do so at once. To leave it
once more they need patience: more after each quick turn, and until what earlier moves
have made requests wait is little beside all that waits.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from modelserver.policy.rebalance.pressure import least_work
from modelserver.policy.rebalance.scene import RebalanceScene
from modelserver.policy.rebalance.state import PastMove, RebalanceRules


def comes_home(scene: RebalanceScene, donor: str, taker: str) -> bool:
    """Whether a move gives back what earlier moves took, seen from both models."""
    gives, gets = scene.meters[donor].ledger, scene.meters[taker].ledger
    return gets.gained < 0 < gives.gained


def all_come_home(scene: RebalanceScene, donors: Iterable[str], taker: str) -> bool:
    """The same of a move with several donors."""
    return all(comes_home(scene, donor, taker) for donor in donors)


def refusal(scene: RebalanceScene, donor: str, taker: str, seconds: float) -> str:
    """Why GPUs of the donor may not go to the taker so soon, "" where they may.

    A need that is great enough goes before all of it, but not before rank.
    """
    if comes_home(scene, donor, taker):
        return ""
    rules, pair = scene.rules, {donor, taker}
    between = [each for each in scene.past if {each.donor, each.taker} == pair]
    patience = patience_seconds(between, rules)
    times = rules.reverse_times * patience / rules.reverse_seconds
    need = scene.pressure(taker, len(scene.planned(taker))).work_seconds
    outranked = scene.outranks(donor, taker)
    if need >= times * least_work(seconds, rules) and not outranked:
        return ""
    last = max((each.at for each in between if each.donor == taker), default=-math.inf)
    ago = scene.now - last
    if ago < patience:
        waits = f"and they turn only after {patience:.0f} s"
        return f"{taker} gave {donor} an engine {ago:.0f} s ago, {waits}"
    return "" if outranked else _cost(scene, donor, taker)


def patience_seconds(between: Sequence[PastMove], rules: RebalanceRules) -> float:
    """How long GPUs stay: a quick turn doubles it, a slow one halves it again."""
    patience = rules.reverse_seconds
    for one, two in pairwise(between):
        if one.donor == two.donor:
            continue
        stayed = two.at - one.at
        if stayed < patience:
            patience = min(2 * patience, rules.most_reverse_seconds)
        elif stayed > 2 * patience:
            patience = max(patience / 2, rules.reverse_seconds)
    return patience


def _cost(scene: RebalanceScene, donor: str, taker: str) -> str:
    """Why moves have not paid for these two, where the taker has given before."""
    if all(each.donor != taker for each in scene.past):
        return ""
    cost = waited = 0.0
    for name in (donor, taker):
        ledger = scene.meters[name].ledger
        drain = scene.pressure(name, len(scene.planned(name))).drain_seconds
        cost += ledger.cost(min(drain, scene.rules.reverse_seconds))
        waited += ledger.waited
    if cost <= scene.rules.lost_share * waited:
        return ""
    return (
        f"moves have made requests of {donor} and {taker} wait {cost:.0f} s more in "
        f"sum, of {waited:.0f} s"
    )
