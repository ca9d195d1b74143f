"""Identical rows, asked once; and answers of the wrong form, asked for again."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from modelserver.errors import AnswerFormError
from modelserver.runs.answer import PromptAnswer, answer_of
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

    def __init__(self, form: Form | None, is_cached: bool) -> None:
        self.form = form
        self._is_cached = is_cached
        #: By what identical rows share: those that wait for the first one's answer.
        self._waiting: dict[bytes, list[int]] = {}
        self._key_of: dict[int, bytes] = {}
        self._kept: OrderedDict[bytes, Answered] = OrderedDict()
        #: By the number that it was sent under: how often a row was asked before.
        self._asked: dict[int, tuple[int, Row]] = {}
        self._next = 0

    def asked(self, row: Row) -> Iterator[Row | Answered]:
        """What is to be done for a row: send it, nothing, or answer it at once."""
        if self._is_cached:
            said = orjson.dumps([row.task, row.payload], option=orjson.OPT_SORT_KEYS)
            key = hashlib.blake2b(said, digest_size=16).digest()
            if key in self._kept:
                self._kept.move_to_end(key)
                yield replace(self._kept[key], number=unsent(row.number))
                return
            if key in self._waiting:
                self._waiting[key].append(row.number)
                return
            self._waiting[key] = []
            self._key_of[row.number] = key
        yield row if self.form is None else self._numbered(row, 0)

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
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return [number, *self._waiting.pop(key)]
