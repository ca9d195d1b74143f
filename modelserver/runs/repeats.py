"""Identical rows, asked once; and answers of the wrong form, asked for again."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from modelserver.errors import AnswerFormError
from modelserver.messaging.catalogue import Catalogue
from modelserver.runs.answer import PromptAnswer, answer_of
from modelserver.runs.answer_cache import AnswerCache, CacheFile, RequestKeys
from modelserver.runs.rows import Answered, Row

#: An answer of the wrong form is asked for so many times more.
REPEATS = 2
#: So many answers are kept for identical rows that come later.
MOST_KEPT = 10_000
#: A validation's message is shown up to so many characters.
MOST_SHOWN = 300


def unsent(number: int) -> int:
    """The number of an answer to a row that was not sent; and the reverse.

    >>> unsent(0), unsent(unsent(7))
    (-1, 7)
    """
    return -1 - number


class Form:
    """A pydantic class that answers are to be instances of."""

    def __init__(self, model: Any) -> None:
        self._model = model
        #: The parameter ``response_format`` as engines take it.
        self.schema = {
            "type": "json_schema",
            "json_schema": {
                "name": model.__name__,
                "schema": model.model_json_schema(),
            },
        }

    @classmethod
    def of(cls, form: Any) -> "Form | None":
        """The form, if it is given by a class of pydantic."""
        return cls(form) if hasattr(form, "model_validate_json") else None

    def read(self, answer: PromptAnswer) -> Any:
        """The instance in an answer. Raises AnswerFormError."""
        try:
            return self._model.model_validate_json(answer.text)
        except ValueError as error:
            hint = "it was cut off; allow more max_tokens" if answer.cut_off else ""
            said = hint or " ".join(str(error).split())[:MOST_SHOWN]
            raise AnswerFormError(
                f"the answer is no {self._model.__name__}: {said}"
            ) from None


class AnswersOfRun:
    """What a run asks only once, and what it asks again."""

    def __init__(
        self,
        form: Form | None,
        is_cached: bool,
        models: Callable[[], Catalogue],
        file: CacheFile | None = None,
        most_kept: int = MOST_KEPT,
    ) -> None:
        self.form = form
        self._most_kept = most_kept
        self._is_cached = is_cached or file is not None
        self._keys = RequestKeys(models)
        self._where = file
        self._file: AnswerCache | None = None
        #: Rows that were answered without being asked.
        self.hits = 0
        #: By what identical rows share: those that wait for the first one's answer.
        self._waiting: dict[bytes, list[int]] = {}
        self._key_of: dict[int, bytes] = {}
        self._kept: OrderedDict[bytes, Answered] = OrderedDict()
        #: By the number that it was sent under: how often a row was asked before.
        self._asked: dict[int, tuple[int, Row]] = {}
        self._next = 0

    def open(self) -> None:
        """Open the file of earlier answers, if there is to be one."""
        if self._where is not None:
            self._file = AnswerCache(self._where)

    def close(self) -> None:
        """Write what is new in that file, and leave it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def asked(self, row: Row) -> Iterator[Row | Answered]:
        """What is to be done for a row: send it, nothing, or answer it at once."""
        if self._is_cached:
            key = self._keys.key(row)
            found = self._find(key)
            if found is not None:
                self.hits += 1
                yield replace(found, number=unsent(row.number), cached=True)
                return
            if key in self._waiting:
                self._waiting[key].append(row.number)
                return
            self._waiting[key] = []
            self._key_of[row.number] = key
        yield row if self.form is None else self._numbered(row, 0)

    def _find(self, key: bytes) -> Answered | None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if self._file is not None and key not in self._waiting:
            value = self._file.find(key)
            return None if value is None else Answered(0, value)
        return None

    def _numbered(self, row: Row, times: int) -> Row:
        """The row under a number of its own: a repeat is another request."""
        number, self._next = self._next, self._next + 1
        self._asked[number] = (times, row)
        return replace(row, number=number)

    def repeat(self, answered: Answered) -> tuple[Row | None, int]:
        """The row to send once more, None if this is its answer; and its number."""
        if answered.number < 0:
            return None, unsent(answered.number)
        if self.form is None:
            return None, answered.number
        times, row = self._asked.pop(answered.number)
        if answered.error is None and times < REPEATS:
            found = answer_of(row.number, None, answered.value)
            try:
                self.form.read(found)
            except AnswerFormError:
                if not found.cut_off:
                    return self._numbered(row, times + 1), row.number
        return None, row.number

    def all_of(self, number: int, answered: Answered) -> list[int]:
        """The numbers of all rows that this is the answer of."""
        key = self._key_of.pop(number, None)
        if key is None:
            return [number]
        if answered.error is None:
            self._kept[key] = answered
            while len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)
            if self._file is not None and self._is_lasting(answered):
                self._file.add(key, answered.value)
        same = self._waiting.pop(key)
        self.hits += len(same)
        return [number, *same]

    def each_of(self, block: Iterable[Answered]) -> Iterator[Answered]:
        """An answer for each row that these are the answers of."""
        for answered in block:
            _, number = self.repeat(answered)
            for same in self.all_of(number, answered):
                is_cached = answered.cached or same != number
                yield replace(answered, number=same, cached=is_cached)

    def _is_lasting(self, answered: Answered) -> bool:
        """Whether it is for later runs: the model's own answer, in the form asked."""
        if isinstance(answered.value, dict) and answered.value.get("fallback_for"):
            return False
        if self.form is not None:
            try:
                self.form.read(answer_of(0, None, answered.value))
            except AnswerFormError:
                return False
        return True
