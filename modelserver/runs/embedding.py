"""``embed_texts``: the vectors of many texts."""

import contextlib
import importlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from celery import Celery

from modelserver.api import default_client
from modelserver.errors import RequestError
from modelserver.messaging.answers import MOST_TEXTS_TOLD
from modelserver.messaging.wire import EMBED, KINDS
from modelserver.parameters import check_priority, held, is_empty, plain
from modelserver.runs.answer_cache import MAX_AGE_SECONDS, MAX_BYTES, CacheFile
from modelserver.runs.feeder import Feeder
from modelserver.runs.journaled_lane import JournaledLane
from modelserver.runs.lane import Lane
from modelserver.runs.progress import open_bar
from modelserver.runs.prompts import (
    SOUND_TEXTS,
    check,
    check_call,
    check_many,
    length_of,
)
from modelserver.runs.repeats import AnswersOfRun, unsent
from modelserver.runs.rows import Answered, Row, RowError
from modelserver.runs.telling import RunTeller
from modelserver.settings import Settings

#: So many vectors are kept for identical texts that come later.
MOST_VECTORS_KEPT = 1_000


def embed_texts(
    texts: Iterable[Any],
    *,
    model: str | None = None,
    on_error: str = "raise",
    deadline: float | None = None,
    priority: int | None = None,
    progress: bool | None = None,
    journal: str | PathLike[str] | None = None,
    cache: bool | str | PathLike[str] = False,
    cache_max_bytes: int = MAX_BYTES,
    cache_max_age_seconds: float = MAX_AGE_SECONDS,
    app: Celery | None = None,
    **parameters: Any,
) -> Any:
    """The vectors of many texts, in their order.

    A float32 array of NumPy of shape (texts, dimensions); without NumPy a list of lists
    of floats. Each text is a request of its own, so that a bad one fails alone:
    ``on_error`` "raise" raises RequestError with the places of all bad texts when the
    others are done, "nan" gives a vector of NaN for each. Identical texts are embedded
    once with ``cache``; a path keeps vectors for other runs too. The other arguments
    are those of ``map_prompts`` and ``embed``.
    """
    if on_error not in ("raise", "nan"):
        raise RequestError(f"on_error must be raise or nan, not {on_error!r}")
    check_many(texts, "embed_texts", "texts")
    priority = check_priority(priority)
    app = app or default_client()
    models = app.modelserver_models
    if deadline is not None:
        parameters["deadline"] = deadline
    parameters = {name: plain(value, name) for name, value in parameters.items()}
    parameters["model"] = models().pick(KINDS[EMBED], model)
    check_call(SOUND_TEXTS, EMBED, parameters, models())
    file = None
    if not isinstance(cache, bool):
        file = CacheFile(Path(cache), cache_max_bytes, cache_max_age_seconds)
    known = AnswersOfRun(None, bool(cache), models, file, MOST_VECTORS_KEPT)
    path = None if journal is None else Path(journal)
    journaled = JournaledLane.of(app, path, ("embed", "texts"), parameters, priority)
    run = f"embed-{uuid.uuid4().hex[:12]}"
    lane = journaled or Lane(app, run, priority=priority)
    embedding = _Embedding(texts, parameters, lane, known)
    settings = app.modelserver_tasks[0].settings
    return embedding.vectors(settings, on_error, progress)


class _Embedding:
    """One call of ``embed_texts``."""

    def __init__(
        self,
        texts: Iterable[Any],
        parameters: Mapping[str, Any],
        lane: Lane | JournaledLane,
        known: AnswersOfRun,
    ) -> None:
        self._texts = texts
        self._parameters = parameters
        self._lane = lane
        self._known = known
        self._total = length_of(texts)
        self._feeder = Feeder(lane, self._rows(), self._total)
        self._vectors = _VectorTable(self._total)
        self._errors: dict[int, RowError] = {}
        self._done = 0

    def vectors(self, settings: Settings, on_error: str, progress: bool | None) -> Any:
        """All of them, as ``embed_texts`` returns them."""
        if isinstance(self._lane, JournaledLane):
            self._lane.open()
        bar, is_over = open_bar("texts", self._total, progress), False
        rows, look = ("texts", self._total), lambda: (self._done, len(self._errors))
        teller = RunTeller(settings, self._lane.run, rows, look)
        is_ended = False
        try:
            self._known.open()
            for block in self._feeder:
                found = list(self._known.each_of(block))
                bar.advance(len(found), sum(map(self._put, found)))
                self._feeder.settle([each.number for each in block])
            is_over = True
        except KeyboardInterrupt:
            is_ended = True
            raise KeyboardInterrupt(self._take_back()) from None
        finally:
            bar.close()
            self._known.close()
            if not is_over and not is_ended:
                self._take_back()
            if isinstance(self._lane, JournaledLane):
                self._lane.close(is_over)
            teller.end(is_over)
        if self._errors and on_error == "raise":
            raise RequestError(_told(self._errors))
        return self._vectors.whole()

    def _put(self, found: Answered) -> bool:
        """Note what became of a text; whether it has no vector."""
        self._done += 1
        if found.error is None:
            self._vectors.put(found.number, found.value)
            return False
        self._errors[found.number] = found.error
        self._vectors.leave_out(found.number)
        return True

    def _take_back(self) -> str:
        """Take back what has not begun; says what is done."""
        of = "" if self._total is None else f" of {self._total:,}"
        told = f"{self._done:,}{of} texts are embedded; {self._feeder.take_back()}"
        lane = self._lane
        return lane.told(told) if isinstance(lane, JournaledLane) else told

    def _rows(self) -> Iterator[Row | Answered]:
        for number, given in enumerate(self._texts):
            text = held(given)
            try:
                if is_empty(text) or (isinstance(text, str) and not text):
                    raise RequestError(f"it is empty ({text!r})")
                payload = plain(text, "the text")
                check(EMBED, payload, self._parameters)
                if not isinstance(payload, str) and not isinstance(payload[0], int):
                    raise RequestError("it must be one text, or one list of token ids")
            except RequestError as error:
                yield Answered(unsent(number), error=RowError.of(error))
                continue
            row = Row(number, EMBED, payload, self._parameters)
            yield from self._known.asked(row)


def _told(errors: dict[int, RowError]) -> str:
    first = sorted(errors.items())[:MOST_TEXTS_TOLD]
    told = "; ".join(f"text {number}: {error.message}" for number, error in first)
    more = f"; and {len(errors) - len(first)} more" if len(errors) > len(first) else ""
    have = "has" if len(errors) == 1 else "have"
    return (
        f"{len(errors)} of the texts {have} no vector: {told}{more}; leave them out, "
        'or say on_error="nan" for vectors of NaN in their places'
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
