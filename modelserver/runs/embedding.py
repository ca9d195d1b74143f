"""``embed_texts``: the vectors of many texts."""

import contextlib
import importlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from celery import Celery

from modelserver.api import default_client
from modelserver.errors import RequestError
from modelserver.messaging.answers import MOST_TEXTS_TOLD
from modelserver.messaging.wire import EMBED, KINDS
from modelserver.parameters import plain
from modelserver.runs.feeder import Feeder
from modelserver.runs.lane import Lane
from modelserver.runs.progress import open_bar
from modelserver.runs.prompts import check, is_empty, length_of
from modelserver.runs.rows import Answered, Row, RowError


def embed_texts(
    texts: Iterable[Any],
    *,
    model: str | None = None,
    on_error: str = "raise",
    deadline: float | None = None,
    priority: int | None = None,
    progress: bool | None = None,
    app: Celery | None = None,
    **parameters: Any,
) -> Any:
    """The vectors of many texts, in their order.

    A float32 array of NumPy of shape (texts, dimensions); without NumPy a list of lists
    of floats. Each text is a request of its own, so that a bad one fails alone:
    ``on_error`` "raise" raises RequestError with the places of all bad texts when the
    others are done, "nan" gives a vector of NaN for each. The other arguments are those
    of ``map_prompts`` and ``embed``.
    """
    if on_error not in ("raise", "nan"):
        raise RequestError(f"on_error must be raise or nan, not {on_error!r}")
    if isinstance(texts, (str, bytes)):
        raise RequestError("embed_texts() takes many texts; put a text into a list")
    app = app or default_client()
    models = app.modelserver_models()
    parameters["model"] = models.pick(KINDS[EMBED], model)
    if deadline is not None:
        parameters["deadline"] = deadline
    total = length_of(texts)
    lane = Lane(app, f"embed-{uuid.uuid4().hex[:12]}", priority=priority)
    vectors, errors = _VectorTable(total), dict[int, RowError]()
    bar, is_over = open_bar("texts", total, progress), False
    feeder = Feeder(lane, _rows(texts, parameters), total)
    try:
        for block in feeder:
            failed = {each.number: each.error for each in block if each.error}
            errors |= failed
            for each in block:
                if each.error is None:
                    vectors.put(each.number, each.value)
                else:
                    vectors.leave_out(each.number)
            feeder.settle([each.number for each in block])
            bar.advance(len(block), len(failed))
        is_over = True
    finally:
        bar.close()
        if not is_over and feeder.under_way:
            lane.cancel()
    if errors and on_error == "raise":
        raise RequestError(_told(errors))
    return vectors.whole()


def _rows(texts: Iterable[Any], parameters: dict[str, Any]) -> Iterator[Row | Answered]:
    for number, text in enumerate(texts):
        try:
            if is_empty(text) or (isinstance(text, str) and not text):
                raise RequestError(f"it is empty ({text!r})")
            payload = plain(text, "the text")
            check(EMBED, payload, parameters)
            if not isinstance(payload, str) and not isinstance(payload[0], int):
                raise RequestError("it must be one text, or one list of token ids")
        except RequestError as error:
            yield Answered(number, error=RowError.of(error))
            continue
        yield Row(number, EMBED, payload, parameters)


def _told(errors: dict[int, RowError]) -> str:
    first = sorted(errors.items())[:MOST_TEXTS_TOLD]
    told = "; ".join(f"text {number}: {error.message}" for number, error in first)
    more = f"; and {len(errors) - len(first)} more" if len(errors) > len(first) else ""
    return (
        f"{len(errors)} of the texts have no vector: {told}{more}; leave them out, or "
        'say on_error="nan" for vectors of NaN in their places'
    )


class _VectorTable:
    """Vectors by their places; four bytes a number where NumPy is there."""

    def __init__(self, total: int | None) -> None:
        self._numpy: Any = None
        with contextlib.suppress(ImportError):
            self._numpy = importlib.import_module("numpy")
        self._total = total
        self._array: Any = None
        self._lists: dict[int, list[float]] = {}
        self._length = 0
        self._missing: set[int] = set()

    def put(self, place: int, vector: list[float]) -> None:
        """Add one vector."""
        self._length = max(self._length, place + 1)
        if self._numpy is None:
            self._lists[place] = vector
            return
        if self._array is None:
            rows = max(self._total or 1024, place + 1)
            self._array = self._numpy.empty((rows, len(vector)), dtype="float32")
        elif place >= len(self._array):
            rows = max(2 * len(self._array), place + 1)
            self._array = self._numpy.resize(self._array, (rows, len(vector)))
        self._array[place] = vector

    def leave_out(self, place: int) -> None:
        """There is no vector for this place."""
        self._length = max(self._length, place + 1)
        self._missing.add(place)

    def whole(self) -> Any:
        """All of them."""
        nan = float("nan")
        if self._numpy is None:
            size = len(next(iter(self._lists.values()), []))
            no_vector = [nan] * size
            places = range(self._length)
            return [self._lists.get(place, no_vector) for place in places]
        if self._array is None:
            return self._numpy.full((self._length, 0), nan, dtype="float32")
        found = self._array[: self._length]
        found[sorted(self._missing)] = nan
        return found
