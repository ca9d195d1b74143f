"""What must hold of the server's state after every step."""

from collections.abc import Collection, Mapping, Sequence

from modelserver.store.batch import Delivery
from tests.model.state import State


def rows_of(message: str) -> int:
    """How many rows a message counts as."""
    return Delivery("", "", message.encode()).rows


def check_places(
    state: State,
    mains: list[str],
    accepted: Collection[str],
    doubled: Collection[str],
    settled: Collection[str],
) -> None:
    """Each accepted request is in one place, or has an answer, or had one."""
    places, dead = state.places(mains), state.dead()
    results = state.results().keys() | settled
    for task in accepted:
        where = places.get(task, [])
        assert len(where) <= 1 or task in doubled, f"{task} is twice: {where}"
        there = where or task in results or task in dead
        assert there, f"{task} is lost"
    strange = places.keys() - set(accepted)
    assert not strange, f"nobody has sent {strange}"


def check_answers(state: State, final: Mapping[str, str]) -> None:
    """An answer that stood once stands for ever, as it was."""
    results = state.results()
    for task, value in final.items():
        now = results.get(task)
        assert now == value, f"the answer of {task} was {value}, now it is {now}"


def check_settled(state: State, settled: Collection[str]) -> None:
    """A row whose answer was settled is not answered again."""
    again = state.row_answers().keys() & settled
    assert not again, f"{again} were settled, and are answered again"


def check_books(state: State, mains: Sequence[str]) -> None:
    """Every message is reachable by a pull, and the counts are right."""
    for main in mains:
        ring = state.listed(state.beside(main, "ring"))
        marked = state.beside(main, "in-ring") in state.values
        assert len(set(ring)) == len(ring), f"a list is in its ring twice: {ring}"
        assert marked == (main in ring), f"the mark of {main} is wrong: {ring}"
        lists = state.lists(main)
        for name in lists.keys() - {main}:
            assert name in ring, f"{name} waits for ever; its ring is {ring}"
        beside = sum(len(lists[name]) for name in lists if name != main)
        noted = int(state.values.get(state.beside(main, "aside"), 0))
        assert noted == beside, f"{noted} are noted beside {main}, {beside} are there"
        more = sum(rows_of(each) - 1 for some in lists.values() for each in some)
        noted = int(state.values.get(state.beside(main, "rows"), 0))
        assert noted == more, f"{noted} more rows are noted in {main}, {more} are there"


def check_depth(state: State, mains: Sequence[str], depth: int) -> None:
    """The server counts a queue's messages right."""
    lists = [each for main in mains for each in state.lists(main).values()]
    real = sum(rows_of(message) for messages in lists for message in messages)
    assert depth == real, f"{depth} wait in {mains[0]} by its account, {real} in truth"


def check_reapable(state: State) -> None:
    """Whoever holds a message is among the workers that others look after."""
    start = state.keys.unacked("")
    known = set(state.listed(state.keys.workers))
    for key in state.values:
        if key.startswith(start):
            name = key.removeprefix(start)
            assert name in known, f"nobody looks after what {name} holds"


def check_deadlines(state: State, mains: list[str], promised: Collection[str]) -> None:
    """A request with a deadline has it for as long as it has no answer."""
    noted, results = state.pairs(state.keys.deadlines), state.results()
    dead = state.dead()
    for task in promised:
        settled = task in results or task in dead
        assert settled or task in noted, f"the deadline of {task} is forgotten"
    places = state.places(mains)
    for task in noted:
        ended = task in promised and task in results and task not in places
        assert not ended, f"{task} is answered and gone, but not its deadline"
