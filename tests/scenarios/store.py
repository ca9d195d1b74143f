"""What a simulated fleet keeps for control, and the controllers themselves."""

from dataclasses import dataclass, field

from modelserver.fleet.sections import RulesSection
from modelserver.policy.actions import Action, Alert, Relaunch, Treat
from modelserver.policy.decide import Decision, apply, consider
from modelserver.policy.health.memory import HealthMemory, from_json, to_json
from modelserver.policy.health.verdicts import Verdict
from modelserver.policy.snapshot import Snapshot
from modelserver.values import Wish


@dataclass
class Store:
    """Wishes, memory and fencing token, and a log of what was decided."""

    controllers: int = 1
    rules: RulesSection = field(default_factory=RulesSection)
    wishes: dict[str, Wish] = field(default_factory=dict)
    memory: HealthMemory = field(default_factory=HealthMemory)
    token: int = 0
    refused: int = 0
    log: list[tuple[float, Action]] = field(default_factory=list)
    verdicts: list[tuple[float, Verdict]] = field(default_factory=list)

    def steer(self, snapshot: Snapshot, now: float) -> None:
        """Each controller locks, reads and decides; the one that locked last wins."""
        decided = []
        for _ in range(self.controllers):
            self.token += 1
            decided.append((self.token, consider(snapshot, self.rules, now)))
        for token, decision in reversed(decided):
            self._write(token, decision, now)

    def _write(self, token: int, decision: Decision, now: float) -> None:
        if token < self.token:
            self.refused += 1
            return
        self.log += [
            (now, action)
            for action in decision.actions
            if not (isinstance(action, Treat) and not action.reason)
        ]
        self.verdicts += [(now, verdict) for verdict in decision.verdicts]
        self.memory = decision.memory
        for name, wish in apply(decision.actions, self.wishes, token).items():
            if wish is None:
                self.wishes.pop(name, None)
            else:
                self.wishes[name] = wish

    def restart(self) -> None:
        """A new controller, which knows only what is stored."""
        stored = to_json(self.memory)
        self.memory = from_json(stored)
        assert to_json(self.memory) == stored

    def relaunches(self, since: float = 0.0) -> list[tuple[float, str]]:
        """When which engine was relaunched."""
        return [
            (at, action.engine)
            for at, action in self.log
            if isinstance(action, Relaunch) and at >= since
        ]

    def drains(self, since: float = 0.0) -> list[tuple[float, str]]:
        """When which engine was taken away by a verdict, relaunched at once or not."""
        found, down = [], set()
        for at, action in self.log:
            if isinstance(action, Treat):
                if action.hold and action.engine not in down and at >= since:
                    found.append((at, action.engine))
                (down.add if action.hold else down.discard)(action.engine)
        return found

    def alerts(self, since: float = 0.0) -> list[tuple[float, str, str]]:
        """Who was told what."""
        return [
            (at, action.engine, action.reason)
            for at, action in self.log
            if isinstance(action, Alert) and at >= since
        ]
