"""What a request's message says of the attempts so far, from one worker to the next.

Anybody may write a message: what cannot be read counts as no attempt.
"""

from dataclasses import dataclass
from typing import Any

from workers.engines.failures import Place

#: Most failed tries that a message tells of.
MOST_TRIES = 20
#: Most bad texts that a message tells of.
MOST_TEXTS = 64
#: Most characters of an engine's id, or of a way to fail.
MOST_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class CarriedTry:
    """One failed try."""

    engine: str
    incarnation: int
    #: In what way it failed, "" where the request cannot be the cause.
    way: str
    #: How likely chance explains it, 1 where it does not speak against the request.
    chance: float
    #: When it failed, in seconds of the store's clock; 0 where unknown.
    at: float = 0.0

    @property
    def place(self) -> Place:
        """The engine's incarnation."""
        return (self.engine, self.incarnation)


@dataclass(frozen=True, slots=True)
class CarriedTries:
    """All of it; none by default."""

    tries: tuple[CarriedTry, ...] = ()
    #: The places of texts that got no sound vector each time, None before the first.
    bad_texts: tuple[int, ...] | None = None
    #: Attempts so far.
    attempts: int = 0
    #: How often a worker passed it on because others' engines had not been tried.
    passes: int = 0


def to_header(carried: CarriedTries) -> dict[str, Any]:
    """The value of the message's header.

    >>> failed = CarriedTry("m-0", 3, "status 500", 7.69e-06, at=100.0004)
    >>> to_header(CarriedTries((failed,), attempts=1))
    {'attempts': 1, 'passes': 0, 'tries': [['m-0', 3, 'status 500', 7.7e-06, 100.0]]}
    """
    value: dict[str, Any] = {
        "attempts": carried.attempts,
        "passes": carried.passes,
        "tries": [
            [
                each.engine[:MOST_CHARACTERS],
                each.incarnation,
                each.way[:MOST_CHARACTERS],
                float(f"{each.chance:.2g}"),
                round(each.at, 3),
            ]
            for each in carried.tries[:MOST_TRIES]
        ],
    }
    if carried.bad_texts is not None:
        value["texts"] = list(carried.bad_texts[:MOST_TEXTS])
    return value


def from_header(value: Any) -> CarriedTries:
    """The reverse of ``to_header``.

    >>> from_header("junk") == from_header(None) == CarriedTries()
    True
    """
    if not isinstance(value, dict):
        return CarriedTries()
    tries, texts = value.get("tries"), value.get("texts")
    if not isinstance(tries, list):
        return CarriedTries()
    read = [_try(each) for each in tries[:MOST_TRIES]]
    places = texts[:MOST_TEXTS] if isinstance(texts, list) else None
    return CarriedTries(
        tuple(each for each in read if each is not None),
        None if places is None else tuple(filter(_is_count, places)),
        _count(value.get("attempts")),
        _count(value.get("passes")),
    )


def _try(value: Any) -> CarriedTry | None:
    if not isinstance(value, list) or len(value) < 4:
        return None
    engine, incarnation, way, chance = value[:4]
    at = value[4] if len(value) > 4 else 0.0  # Versions before do not say it.
    texts_fit = all(
        isinstance(each, str) and len(each) <= MOST_CHARACTERS for each in (engine, way)
    )
    is_chance = isinstance(chance, (int, float)) and 0 < chance <= 1
    is_time = isinstance(at, (int, float)) and 0 <= at < 2**53
    if not (texts_fit and is_chance and is_time and _is_count(incarnation)):
        return None
    return CarriedTry(engine, incarnation, way, float(chance), float(at))


def _count(value: Any) -> int:
    return value if _is_count(value) else 0


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
