"""How many engines there are to be, as placement takes it. Pure.

``rebalance`` says which engines to have and which GPUs are promised to whom; here its
view is made from the snapshot, and its answer into a demand for placement.
"""

from dataclasses import dataclass, replace
from statistics import fmean

from modelserver.policy.placement import Demand
from modelserver.policy.rebalance import (
    Memory,
    Outcome,
    Queue,
    Reason,
    Rules,
    rebalance,
    view_of,
)
from modelserver.values import Desired, EngineSpec, EngineState, Snapshot
from modelserver.values import Outcome as Sampled

#: The time of an engine that a prompt token takes, of that of a completion token in a
#: full batch: it is read with thousands of others.
PROMPT_SHARE = 0.2
#: Requests that say how large requests are: not older, in seconds, and not fewer.
RECENT_SECONDS, FEWEST = 300.0, 16


@dataclass(frozen=True, slots=True)
class Scaling:
    """What placement is to do, what to remember, and why.

    Without a demand, each model has its ``min_engines``.
    """

    demand: Demand | None = None
    memory: Memory | None = None
    reasons: tuple[Reason, ...] = ()


def scale(snapshot: Snapshot, now: float) -> Scaling:
    """Wake, grow, shrink and move, where the snapshot brings what is remembered.

    Work is in estimated tokens: requests that wait are taken to be as large as those
    that were answered of late.
    Where nothing is remembered yet, the engines that run are the ones to have.
    """
    remembered = snapshot.moves
    if not isinstance(remembered, Memory):
        return Scaling()
    found = _found(snapshot)
    if found and remembered.ticked_at is None:
        wishes = {name: Desired(spec) for name, spec in found.items()}
        snapshot = replace(snapshot, desired={**wishes, **snapshot.desired})
    queues = {
        name: Queue(waiting, request_work(snapshot, name, now))
        for name, waiting in snapshot.queues.items()
    }
    finished = {name: float(count) for name, count in snapshot.finished.items()}
    view = view_of(snapshot, queues, finished)
    outcome = rebalance(view, remembered, Rules(), now)
    engines = tuple(
        EngineSpec(each.engine, each.model, each.host, uuids=tuple(each.uuids))
        if each.host or each.engine not in found
        else found[each.engine]
        for each in outcome.wanted
    )
    demand = Demand(engines, _reserved(outcome))
    return Scaling(demand, outcome.memory, outcome.reasons)


def request_work(snapshot: Snapshot, model: str, now: float) -> float | None:
    """What a request of a model was of late, in tokens; None where too few tell."""
    sizes = [
        each.completion_tokens + PROMPT_SHARE * each.prompt_tokens
        for name, report in snapshot.engines.items()
        if report.model == model
        for each in snapshot.samples.get(name, ())
        if each.outcome is Sampled.OK and now - each.ended_at <= RECENT_SECONDS
    ]
    return fmean(sizes) or None if len(sizes) >= FEWEST else None


def _found(snapshot: Snapshot) -> dict[str, EngineSpec]:
    """Engines that run and that nobody wished for: the store has lost its data."""
    hosts = {host.name: host for host in snapshot.hosts}
    return {
        name: EngineSpec(
            name,
            report.model,
            report.host,
            uuids=tuple(
                gpu.uuid for gpu in hosts[report.host].gpus if gpu.index in report.gpus
            ),
        )
        for name, report in snapshot.engines.items()
        if name not in snapshot.desired
        and report.host in hosts
        and (report.serves or report.state is EngineState.STARTING)
    }


def _reserved(outcome: Outcome) -> dict[str, EngineSpec]:
    """The GPUs that a move waits for, with the engine that gets them."""
    moves = {move.engine: move for move in outcome.memory.moves}
    takers = {
        name: EngineSpec(name, move.model, move.host, uuids=tuple(move.uuids))
        for name, move in moves.items()
    }
    return {uuid: takers[engine] for uuid, engine in outcome.reserved.items()}
