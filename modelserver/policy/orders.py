"""What operators have ordered, and how decisions heed it. Pure.

A paused engine or model is left alone altogether. A drained engine gets nothing new and
is not judged; it stays drained when it has to move to another host. The engines of a
drained host go to others; those that fit nowhere else are held like a drained engine.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from modelserver.policy.actions import Action, Alert, Treat, Want
from modelserver.values import EngineReport, Order, Wish

if TYPE_CHECKING:
    # Commands that only need the orders do without all that a look remembers.
    from modelserver.policy.snapshot import Snapshot

#: The kind of an order that an engine gets nothing new.
DRAIN = "drain"
#: The kind of an order that control leaves an engine or a model alone.
PAUSE = "pause"
#: The kind of an order that a host gets no engines, and gives away those it has.
DRAIN_HOST = "drain-host"
#: The kind of an order that an engine is on a certain host.
MOVE = "move"


class Orders:
    """The orders that are in force at one look.

    ``homeless`` are the engines that have no other place than the one they have.
    """

    def __init__(
        self, snapshot: "Snapshot", now: float, homeless: Collection[str] = ()
    ) -> None:
        self._snapshot = snapshot
        self._homeless = frozenset(homeless)
        orders = in_force(snapshot.orders, now)
        self._paused = {each.target for each in orders if each.kind == PAUSE}
        self._drained = {each.target: each for each in orders if each.kind == DRAIN}

    def pauses(self, action: Action) -> bool:
        """Whether an action is about a paused engine or model."""
        match action:
            case Want(spec):
                return bool({spec.id, spec.model} & self._paused)
            case Alert():
                return False
        return self.is_paused(action.engine)

    def is_paused(self, engine: str) -> bool:
        """Whether an engine, or its model, is paused."""
        model = model_of(self._snapshot, engine)
        return bool({engine, model} & self._paused)

    def left_alone(self) -> frozenset[str]:
        """The engines that are not judged: paused, held by order, or just released."""
        known = self._snapshot.wishes.keys() | self._snapshot.engines.keys()
        paused = {engine for engine in known if self.is_paused(engine)}
        held = {
            name
            for name, wish in self._snapshot.wishes.items()
            if self._hold(name, wish)
        }
        changed = {treat.engine for treat in self.treats()}
        return frozenset(paused | self._drained.keys() | held | changed)

    def treats(self) -> tuple[Treat, ...]:
        """The holds to be set or lifted so that wishes are as operators ordered."""
        changes = []
        for name, wish in sorted(self._snapshot.wishes.items()):
            hold = self._hold(name, wish)
            if hold != wish.hold and (hold or wish.drained):
                said = hold or "an operator lets it serve again"
                changes.append(_treat(name, wish, self._report(name), hold, said))
        return tuple(changes)

    def _hold(self, engine: str, wish: Wish) -> str:
        if order := self._drained.get(engine):
            return hold_of(order)
        if engine in self._homeless:
            drained = self._snapshot.drained_hosts
            holds = (drained.get(place.host, "") for place in wish.spec.places)
            return next(filter(None, holds), "")
        return ""

    def _report(self, engine: str) -> EngineReport | None:
        return self._snapshot.engines.get(engine)


def _treat(
    name: str, wish: Wish, report: EngineReport | None, hold: str, reason: str
) -> Treat:
    return Treat(
        name,
        report.incarnation if report else 0,
        limit=wish.limit,
        degraded=wish.degraded,
        hold=hold,
        drained=bool(hold),
        canary=wish.canary,
        reason=reason,
    )


def with_orders(snapshot: "Snapshot", now: float) -> "Snapshot":
    """The snapshot with what orders mean for the placement of engines."""
    orders = in_force(snapshot.orders, now)
    return replace(
        snapshot,
        drained_hosts={
            each.target: f"host {each.target} is {hold_of(each)}"
            for each in orders
            if each.kind == DRAIN_HOST
        },
        moved={each.target: each.host for each in orders if each.kind == MOVE},
    )


def in_force(orders: Iterable[Order], now: float) -> tuple[Order, ...]:
    """The orders whose time is not over."""
    return tuple(each for each in orders if not each.until or now < each.until)


def hold_of(order: Order) -> str:
    """The hold that a drained engine's wish shows: by whom, and why."""
    return f"drained by {order.who}" + (f": {order.reason}" if order.reason else "")


def orders_about(orders: Collection[Order], *targets: str) -> tuple[Order, ...]:
    """The orders about any of these engines and models, drains first."""
    about = (each for each in orders if each.target in targets)
    return tuple(sorted(about, key=lambda each: (each.kind, each.target)))


def model_of(snapshot: "Snapshot", engine: str) -> str:
    """The model of an engine that is wanted or reported, "" of any other."""
    wish, report = snapshot.wishes.get(engine), snapshot.engines.get(engine)
    return wish.spec.model if wish else report.model if report else ""
