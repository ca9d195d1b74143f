"""The entry to all decisions: from a snapshot to the actions that follow. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from modelserver.policy.actions import Action, Drop, Relaunch, Treat, Want
from modelserver.policy.clock_steps import by_clock_of_now
from modelserver.policy.health.judge import Judgement, judge
from modelserver.policy.health.memory import HealthMemory
from modelserver.policy.health.verdicts import Verdict
from modelserver.policy.orders import Orders, with_orders
from modelserver.policy.placement.evening import even_out
from modelserver.policy.placement.planning import plan
from modelserver.policy.rebalance.demand import Scaling, scale
from modelserver.policy.rolling import Budget, restarts_due, spread
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Cause, EngineReport, Wish


class Rules(Protocol):
    """The part of the fleet file's ``[rules]`` that decisions depend on."""

    @property
    def hang_seconds(self) -> float: ...

    @property
    def relaunch_pause_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and what to remember."""

    actions: tuple[Action, ...] = ()
    #: Why an engine has no place, by the engine's id.
    waiting: Mapping[str, str] = field(default_factory=dict)
    #: To be stored together with the wishes, or not at all; empty where the snapshot
    #: brought none.
    memory: HealthMemory = field(default_factory=HealthMemory)
    #: The verdicts of this look.
    verdicts: tuple[Verdict, ...] = ()
    #: How many engines there are to be, and what is to be remembered of that.
    scaling: Scaling = field(default_factory=Scaling)


def decide(snapshot: Snapshot, rules: Rules, now: float) -> tuple[Action, ...]:
    """What control should do now; nothing where nothing changes.

    ``now`` is by the store's clock. Dead engines are restarted by their launcher.
    """
    return consider(snapshot, rules, now).actions


def consider(snapshot: Snapshot, rules: Rules, now: float) -> Decision:
    """The same as ``decide``, with all that goes with it."""
    snapshot = with_orders(by_clock_of_now(snapshot, now), now)
    budget = Budget(snapshot)
    scaling = scale(replace(snapshot, hosts=snapshot.open_hosts), now)
    planned = plan(snapshot, scaling.demand)
    orders = Orders(snapshot, now, planned.waiting)
    spreadable = [each for each in planned.actions if not orders.pauses(each)]
    placed = spread(spreadable, snapshot, budget)
    if not (planned.actions or planned.waiting):
        evened = [each for each in even_out(snapshot, now) if not orders.pauses(each)]
        placed = spread(evened, snapshot, budget)
    changed = orders.left_alone() | {
        action.spec.id if isinstance(action, Want) else action.engine
        for action in placed
    }
    hung = {
        engine.id: _hung_reason(engine, snapshot, now)
        for engine in snapshot.engines.values()
        if engine.id not in changed
        and _may_be_relaunched(engine, snapshot, rules, now)
        and _silence(engine, now) > rules.hang_seconds
    }
    if snapshot.memory is not None:
        judged = judge(snapshot, snapshot.memory, budget, hung, changed, now)
    else:
        judged = Judgement(
            tuple(
                Relaunch(name, snapshot.engines[name].incarnation, reason, Cause.HUNG)
                for name, reason in hung.items()
            )
        )
    busy = changed | {engine for each in judged.actions if (engine := _touched(each))}
    restarts = restarts_due(snapshot, budget, busy)
    return Decision(
        (*placed, *orders.treats(), *judged.actions, *restarts),
        planned.waiting,
        judged.memory,
        judged.verdicts,
        scaling,
    )


def _touched(action: Action) -> str:
    """The engine that an action takes away, "" where it leaves it serving."""
    match action:
        case Relaunch(engine):
            return engine
        case Treat(engine, hold=hold) if hold:
            return engine
    return ""


def _silence(engine: EngineReport, now: float) -> float:
    return now - max(engine.alive_at, engine.since)


def _may_be_relaunched(
    engine: EngineReport, snapshot: Snapshot, rules: Rules, now: float
) -> bool:
    wish = snapshot.wishes.get(engine.id)
    # A dead launcher reports nothing, which says nothing about its engines.
    live = any(host.name == engine.host for host in snapshot.hosts)
    return (
        engine.serves
        and live
        and wish is not None
        and wish.spec.host == engine.host
        and not wish.spec.url  # Somebody else runs an engine with a URL.
        and wish.relaunch < engine.incarnation
        and now - engine.since >= rules.relaunch_pause_seconds
    )


def _hung_reason(engine: EngineReport, snapshot: Snapshot, now: float) -> str:
    reason = f"hung: no token for {_silence(engine, now):.0f} s"
    load = snapshot.loads.get(engine.id)
    if load and load.inflight:
        reason += f" with {load.inflight} in flight, oldest {load.oldest_seconds:.0f} s"
    return reason


def apply(
    actions: Iterable[Action], present: Mapping[str, Wish], token: int
) -> dict[str, Wish | None]:
    """The wishes that the actions change, by engine; None takes a wish back."""
    wishes: dict[str, Wish | None] = {}
    for action in actions:
        match action:
            case Want(spec, leaves):
                old = present.get(spec.id, Wish(spec))
                wishes[spec.id] = replace(old, spec=spec, token=token, left=leaves)
            case Relaunch(engine, incarnation, reason, cause):
                wish = wishes.get(engine) or present[engine]
                wishes[engine] = replace(
                    wish,
                    relaunch=incarnation,
                    reason=reason,
                    cause=cause,
                    token=token,
                )
            case Treat(engine):
                wish = wishes.get(engine) or present[engine]
                wishes[engine] = replace(
                    wish,
                    limit=action.limit,
                    degraded=action.degraded,
                    hold=action.hold,
                    drained=action.drained,
                    abort=action.abort,
                    canary=action.canary,
                    token=token,
                )
            case Drop(engine):
                wishes[engine] = None
    return wishes
