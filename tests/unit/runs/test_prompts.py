"""From what a caller iterates over to rows."""

import math
from collections import namedtuple
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import RequestError
from modelserver.messaging.wire import CHAT, COMPLETE
from modelserver.parameters import plain
from modelserver.runs.embedding import embed_texts
from modelserver.runs.prompts import Template, check_many, payload_of, task_of

CHAT_OF_ONE = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("prompt", "task"),
    [("hi", COMPLETE), ([1, 2, 3], COMPLETE), (CHAT_OF_ONE, CHAT)],
)
def test_text_and_ids_are_completed_and_messages_answered(prompt: Any, task: str):
    assert task_of(payload_of(prompt, None, is_chat=False)) == task


def test_a_text_can_be_a_message():
    assert payload_of("hi", None, is_chat=True) == CHAT_OF_ONE
    assert payload_of(CHAT_OF_ONE, None, is_chat=True) == CHAT_OF_ONE


def test_a_template_takes_columns():
    template = Template("{{n}} is {n:03d}: {a text}")
    assert template.fill({"n": 7, "a text": "seven", "other": 1}) == "{n} is 007: seven"
    pair = namedtuple("pair", "n text")
    assert payload_of(pair(1, "one"), Template("{n} {text}"), False) == "1 one"


@pytest.mark.parametrize("text", ["{", "}", "{} {0}", "{a.b}", "{a[0]}", '{"a": 1}'])
def test_a_wrong_template_is_refused_at_once(text: str):
    with pytest.raises(RequestError, match="template"):
        Template(text)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_an_empty_cell_is_refused_by_its_column(value: object):
    with pytest.raises(RequestError, match='column "text" is empty'):
        Template("{text}").fill({"text": value})


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(RequestError, match='no column "txt"; there are: text, n'):
        Template("{txt}").fill({"text": "", "n": 1})


@pytest.mark.parametrize(
    ("prompt", "template", "words"),
    [
        (None, None, "is empty"),
        (float("nan"), None, "is empty"),
        ({"text": "a"}, None, "needs a template"),
        ("a", "{text}", "needs an object with columns, not text"),
        (object(), None, "of type object"),
        ("\ud800", None, "surrogate"),
        ([{"role": "user", "content": float("nan")}], None, "NaN"),
        ({"role": "user", "content": "hi"}, None, "a message stands alone; put the"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt: Any, template: str | None, words: str):
    with pytest.raises(RequestError, match=words):
        payload_of(prompt, template and Template(template), is_chat=False)


def test_cells_of_pandas_and_numpy_are_taken():
    numpy = pytest.importorskip("numpy")
    assert payload_of(numpy.str_("hi"), None, False) == "hi"
    assert payload_of(numpy.array([1, 2]), None, False) == [1, 2]
    row = {"n": numpy.int64(7), "x": numpy.float64(0.5)}
    assert Template("{n} {x}").fill(row) == "7 0.5"
    pandas = pytest.importorskip("pandas")
    with pytest.raises(RequestError, match="is empty"):
        payload_of(pandas.NA, None, False)


class Scalar:
    """As Arrow's: what it holds is asked for."""

    def __init__(self, value: object) -> None:
        self._value = value

    def as_py(self) -> object:
        return self._value


def test_scalars_of_arrow_are_what_they_hold():
    assert payload_of(Scalar("hi"), None, False) == "hi"
    assert Template("{n}").fill({"n": Scalar(7)}) == "7"
    with pytest.raises(RequestError, match="is empty"):
        payload_of(Scalar(None), None, False)
    with pytest.raises(RequestError, match='"n" is empty'):
        Template("{n}").fill({"n": Scalar(None)})


def test_columns_and_tables_of_arrow():
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"text": ["a", "b"]})
    check_many(table["text"], "map_prompts", "prompts")
    assert [payload_of(each, None, False) for each in table["text"]] == ["a", "b"]
    for value in (table, table.to_batches()[0]):
        with pytest.raises(RequestError, match=r"table\.to_pylist\(\)"):
            check_many(value, "map_prompts", "prompts")
        with pytest.raises(RequestError, match=r'table\["text"\]'):
            check_many(value, "embed_texts", "texts")


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        bytearray(b"a"),
        memoryview(b"a"),
        object(),
        (n for n in "a"),
        Scalar(0).as_py,
        Scalar(b""),
    ],
)
def test_a_cell_that_is_no_text_is_refused_by_its_column(value: object):
    with pytest.raises(RequestError, match=r'^column "a" is .*; make it a text$'):
        Template("{a}").fill({"a": value})


@pytest.mark.parametrize("value", [None, 3, Path("/x")], ids=str)
def test_what_cannot_be_iterated_over_is_refused(value: object):
    with pytest.raises(RequestError, match=r"^map_prompts\(\) takes many prompts"):
        check_many(value, "map_prompts", "prompts")
    with pytest.raises(RequestError, match=r"^embed_texts\(\) takes many texts"):
        check_many(value, "embed_texts", "texts")


def test_a_template_that_is_no_text_is_refused():
    with pytest.raises(RequestError, match=r"^a template is a text .* not \['x'\]$"):
        Template(["x"])  # type: ignore[arg-type]


def test_a_cell_that_is_not_a_number_is_empty_whatever_its_type():
    numpy = pytest.importorskip("numpy")
    nothing = (
        *(numpy.float32("nan"), numpy.datetime64("NaT"), Decimal("nan"), math.nan),
        numpy.float16("nan"),
    )
    for value in nothing:
        with pytest.raises(RequestError, match=r'^column "a" is empty'):
            Template("{a}").fill({"a": value})
    assert Template("{a}").fill({"a": numpy.float32(0.5)}) == "0.5"


def test_a_text_of_a_class_of_its_own_is_what_it_holds():
    class Tone(str, Enum):  # As before StrEnum: str() of it is its name.
        KIND = "kind"

        def __str__(self) -> str:
            return "Tone.KIND"

    assert payload_of(Tone.KIND, None, False) == "kind"
    found = payload_of([{"role": "user", Tone.KIND: Tone.KIND}], None, False)
    assert found == [{"role": "user", "kind": "kind"}]


def test_an_asynchronous_iterable_is_refused():
    async def prompts() -> Any:
        yield "a"

    with pytest.raises(RequestError, match="async_generator"):
        check_many(prompts(), "map_prompts", "prompts")


class Column:
    """As polars' Series."""

    def to_list(self) -> list[str]:
        return ["a"]


def test_a_frame_that_is_not_collected_has_no_rows_yet():
    class LazyFrame:
        """As polars': it has columns by their names, and nothing to iterate over."""

        def __getitem__(self, name: object) -> object:
            raise TypeError("not subscriptable")

        def collect(self) -> list[str]:
            return []

    for call in ("map_prompts", "embed_texts"):
        with pytest.raises(RequestError, match=r"pass those of frame\.collect\(\)$"):
            check_many(LazyFrame(), call, "rows")


def test_a_value_that_holds_others_is_refused_with_the_way_to_them():
    pandas = pytest.importorskip("pandas")
    for value, remedy in (
        (pandas.Series(["a"]), r"its \.tolist\(\)"),
        (Column(), r"its \.to_list\(\)"),
        (pandas.Timedelta("5s"), r"its \.total_seconds\(\)"),
        ((n for n in "a"), r"list\(\.\.\.\) of it"),
    ):
        with pytest.raises(RequestError, match=f"pass {remedy}$"):
            plain(value, "input")
    with pytest.raises(RequestError, match=r"^input\[1\] is empty \(<NA>\)"):
        plain(["a", pandas.NA], "input")


def test_a_frame_is_refused_with_the_way_to_its_rows():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(RequestError, match=r"frame\.to_dict"):
        check_many(pandas.DataFrame({"a": [1]}), "map_prompts", "prompts")
    check_many(pandas.Series(["a"]), "map_prompts", "prompts")


def test_a_table_is_not_taken_for_the_names_of_its_columns():
    class DataFrame:
        """As pandas': an iterable of the names of its columns."""

    for table in (DataFrame(), {"text": ["a", "b"]}):
        with pytest.raises(RequestError, match=r'by the names .* table\["text"\]'):
            embed_texts(table)
    with pytest.raises(RequestError, match=r'a dict is iterated .* table\["text"\]'):
        check_many({"text": ["a"]}, "map_prompts", "prompts")
