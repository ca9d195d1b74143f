"""How many engines there are to be, as placement takes it. Pure.

A snapshot becomes a view for ``rebalance``, and its answer a demand for placement.
"""

from dataclasses import dataclass, replace
from statistics import fmean

from modelserver.policy.placement.needs import Demand
from modelserver.policy.rebalance.deciding import rebalance
from modelserver.policy.rebalance.state import (
    EngineView,
    ModelView,
    Reason,
    RebalanceMemory,
    RebalanceRules,
    RebalanceView,
)
from modelserver.policy.snapshot import Snapshot
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    NodePlace,
    Outcome,
    Wish,
)

#: A prompt token takes this share of an engine's time for a completion token in a full
#: batch: it is read with thousands of others.
PROMPT_SHARE = 0.2
#: Age in seconds up to which requests tell how large requests are.
RECENT_SECONDS = 300.0
#: The size of requests is unknown if fewer of them tell.
FEWEST_REQUESTS = 16


@dataclass(frozen=True, slots=True)
class Scaling:
    """What placement is to do, what to remember, and why."""

    #: The engines to have; None for each model's ``min_engines``.
    demand: Demand | None = None
    memory: RebalanceMemory | None = None
    reasons: tuple[Reason, ...] = ()


def scale(snapshot: Snapshot, now: float) -> Scaling:
    """Wake, grow, shrink and move, where the snapshot brings what is remembered.

    Work is in estimated tokens: requests that wait are taken to be as large as those
    that were answered of late.
    Where nothing is remembered yet, the engines that run are the ones to have.
    """
    remembered = snapshot.moves
    if remembered is None:
        return Scaling()
    found = _found(snapshot)
    if found and remembered.ticked_at is None:
        wishes = {name: Wish(spec) for name, spec in found.items()}
        snapshot = replace(snapshot, wishes={**wishes, **snapshot.wishes})
    outcome = rebalance(view_of(snapshot, now), remembered, RebalanceRules(), now)
    engines = tuple(
        each if each.host else found.get(each.id, each) for each in outcome.wanted
    )
    demand = Demand(engines, outcome.reserved, outcome.minimums)
    return Scaling(demand, outcome.memory, outcome.reasons)


def view_of(snapshot: Snapshot, now: float) -> RebalanceView:
    """A snapshot as these rules see it.

    An engine on a host that is not live counts as one without a place; it serves on
    where it is to keep its place.
    """
    live = {host.name for host in snapshot.hosts}
    engines = []
    for name in sorted(snapshot.wishes.keys() | snapshot.engines.keys()):
        wish, report = snapshot.wishes.get(name), snapshot.engines.get(name)
        spec = wish.spec if wish else None
        lost = report and report.host not in live and name not in snapshot.away
        if report is not None and (lost or _has_ended(report)):
            report = None
        if report is None and spec is None:
            continue
        model = report.model if report else spec.model if spec else ""
        host = report.host if report else spec.host if spec else ""
        there = host if host in live else ""
        gone = spec is None or bool(report and spec.host != report.host)
        state = report.state if report else EngineState.PENDING
        if gone and state.serves:
            state = EngineState.DRAINING
        load = snapshot.loads.get(name)
        uuids = spec.uuids if spec and there == spec.host else ()
        if report and not uuids:
            uuids = _uuids(snapshot, there, report.gpus)
        done = float(snapshot.finished.get(name, 0))
        inflight = load.inflight if load else 0
        followers = spec.followers if spec else ()
        view = (name, model, there, state, uuids, inflight, done, followers)
        engines.append(EngineView(*view))
    models = (
        ModelView(
            each,
            snapshot.queues.get(each.name, 0),
            request_work(snapshot, each.name, now),
        )
        for each in snapshot.specs
    )
    return RebalanceView(tuple(models), tuple(engines), snapshot.hosts, snapshot.pins)


def _has_ended(report: EngineReport) -> bool:
    return report.state is EngineState.STOPPED


def _uuids(snapshot: Snapshot, host: str, indexes: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(
        gpu.uuid
        for each in snapshot.hosts
        for gpu in each.gpus
        if each.name == host and gpu.index in indexes
    )


def request_work(snapshot: Snapshot, model: str, now: float) -> float | None:
    """What a request of a model was of late, in tokens; None where too few tell."""
    sizes = [
        each.completion_tokens + PROMPT_SHARE * each.prompt_tokens
        for name, report in snapshot.engines.items()
        if report.model == model
        for each in snapshot.samples.get(name, ())
        if each.outcome is Outcome.OK and now - each.ended_at <= RECENT_SECONDS
    ]
    return fmean(sizes) or None if len(sizes) >= FEWEST_REQUESTS else None


def _found(snapshot: Snapshot) -> dict[str, EngineSpec]:
    """Engines that run and that nobody wished for: the store has lost its data."""
    hosts = {host.name for host in snapshot.hosts}
    return {
        name: EngineSpec(
            name,
            report.model,
            report.host,
            uuids=_uuids(snapshot, report.host, report.gpus),
            followers=tuple(
                NodePlace(each.host, _uuids(snapshot, each.host, each.gpus))
                for each in report.followers
            ),
        )
        for name, report in snapshot.engines.items()
        if name not in snapshot.wishes
        and report.host in hosts
        and (report.serves or report.state is EngineState.STARTING)
    }
