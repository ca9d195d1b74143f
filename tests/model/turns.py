"""How one queue's lists share what is pulled: by priority, then in equal turns."""

from collections.abc import Sequence

from tests.model.promises import rows_of
from tests.model.state import State


class Turns:
    """Who was served since each waiting list had its turn."""

    def __init__(self) -> None:
        self.passed: dict[str, set[str]] = {}

    def check_pull(
        self, before: State, after: State, mains: Sequence[str], room: int
    ) -> None:
        """One pull from a queue took what it should."""
        if any(rows_of(message) > 1 for message in _waiting(before, mains)):
            self._check_rows(before, after, mains, room)
            return
        waited = sum(len(x) for main in mains for x in before.lists(main).values())
        left = min(room, waited)
        for main in mains:
            old, new = before.lists(main), after.lists(main)
            taken = {name: len(old[name]) - len(new.get(name, ())) for name in old}
            number = sum(taken.values())
            due = min(left, sum(map(len, old.values())))
            assert number == due, f"{number} were pulled from {main}, not {due}"
            left -= number
            for name in new:
                assert new[name] == old[name][taken[name] :], f"{name} is out of order"
            if number:
                self._served(taken, set(new))

    def _check_rows(
        self, before: State, after: State, mains: Sequence[str], room: int
    ) -> None:
        """With bundles: enough rows, at most one bundle too many, in their order."""
        there, left = _waiting(before, mains), _waiting(after, mains)
        rows = sum(map(rows_of, there)) - sum(map(rows_of, left))
        assert rows >= min(room, sum(map(rows_of, there))), f"{rows} rows for {room}"
        most = max(map(rows_of, there))
        assert rows < room + most, f"{rows} rows for {room}, bundles have {most}"
        for main in mains:
            old, new = before.lists(main), after.lists(main)
            for name, messages in new.items():
                kept = old[name][-len(messages) :]
                assert messages == kept, f"{name} is out of order"
                self.passed.pop(name, None)

    def _served(self, taken: dict[str, int], waiting: set[str]) -> None:
        shares = [taken[name] for name in waiting]
        if shares:
            assert max(shares) - min(shares) <= 1, f"unequal shares: {taken}"
        served = {name for name, number in taken.items() if number}
        for name in waiting:
            before = self.passed.setdefault(name, set())
            if name in served:
                before.clear()
                continue
            again = before & served
            assert not again, f"{name} waits while {again} had two turns"
            before |= served

    def forget_empty(self, state: State, mains: Sequence[str]) -> None:
        """A list that is empty waits for nothing."""
        there = {name for main in mains for name in state.lists(main)}
        self.passed = {k: v for k, v in self.passed.items() if k in there}


def _waiting(state: State, mains: Sequence[str]) -> list[str]:
    return [
        message
        for main in mains
        for messages in state.lists(main).values()
        for message in messages
    ]
