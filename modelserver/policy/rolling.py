"""Restarts that a changed fleet asks for: a few engines of a model at a time. Pure.

Engines that fail under the new section count as away. So if no engine can start with
it, only the first ones are lost, and the others go on serving.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from modelserver.policy.actions import Drop, Relaunch, Want
from modelserver.policy.changes import most_down
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Cause, EngineState

#: States in which a wanted engine counts as away.
AWAY = frozenset(
    {
        EngineState.STARTING,
        EngineState.DRAINING,
        EngineState.BACKOFF,
        EngineState.FATAL,
    }
)


class Budget:
    """How many more engines of each model may be taken away now."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._live = {host.name for host in snapshot.hosts}
        self._wanted = Counter(wish.spec.model for wish in snapshot.wishes.values())
        self._left = Counter({model: self.most_down(model) for model in self._wanted})
        for engine, wish in snapshot.wishes.items():
            if self._is_away(engine):
                self._left[wish.spec.model] -= 1

    def _is_away(self, engine: str) -> bool:
        report = self._snapshot.engines.get(engine)
        if report is None or report.host not in self._live:
            return False  # It waits for its place or its host, not for a restart.
        wish = self._snapshot.wishes[engine]
        asked = wish.relaunch >= report.incarnation > 0
        return asked or bool(wish.hold) or report.state in AWAY

    def most_down(self, model: str) -> int:
        """How many engines of the model may be away at once."""
        return most_down(self._wanted[model])

    def serves(self, engine: str) -> bool:
        """Whether the engine serves where it is wanted, and is to go on with that."""
        report = self._snapshot.engines.get(engine)
        wish = self._snapshot.wishes.get(engine)
        return (
            report is not None
            and wish is not None
            and report.state.serves
            and report.host in self._live
            and report.host == wish.spec.host
            and not self._is_away(engine)
        )

    def take(self, model: str) -> bool:
        """Count one engine of the model as taken away; False if none may be."""
        if self._left[model] < 1:
            return False
        self._left[model] -= 1
        return True


def spread(
    placed: Iterable[Want | Drop], snapshot: Snapshot, budget: Budget
) -> tuple[Want | Drop, ...]:
    """The changes of place, but for those that have to wait until others are over."""
    return tuple(
        action
        for action in placed
        if not isinstance(action, Want)
        or not budget.serves(action.spec.id)
        or budget.take(action.spec.model)
    )


def restarts_due(
    snapshot: Snapshot, budget: Budget, busy: Collection[str]
) -> tuple[Relaunch, ...]:
    """The engines that run by an earlier fleet and are to be restarted now.

    Leaves out those of ``busy``, about which something else has been decided.
    """
    return tuple(
        Relaunch(engine.id, engine.incarnation, engine.stale, Cause.CHANGED)
        for engine in sorted(snapshot.engines.values(), key=lambda each: each.id)
        if engine.stale
        and engine.id not in busy
        and budget.serves(engine.id)
        and budget.take(engine.model)
    )
