"""Whether the vectors of a response are sound, and which text a bad one belongs to."""

import base64
import struct
from collections import Counter
from typing import Any

import pytest

from modelserver.engine_protocol import EngineFault
from modelserver.messaging.answers import UnsoundVectorsError, answer, in_order, told
from modelserver.messaging.requests import build
from modelserver.messaging.wire import EMBED

EMBEDDING = build(EMBED, ("p",), {})


def vectors(*values: Any) -> dict[str, Any]:
    entries = [
        {"index": place, "embedding": value} for place, value in enumerate(values)
    ]
    return {"data": entries}


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


NAN, INFINITY = float("nan"), float("inf")
GOOD = [0.5, -0.25]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("vector", "why"),
    [
        (None, "no vector"),
        ([], "an empty vector"),
        ("", "an empty vector"),
        ([None, 0.5], "other than numbers"),
        (["a", "b"], "other than numbers"),
        ([[0.5, 0.5]], "other than numbers"),
        ({"a": 1}, "a dict"),
        ([0.0, -0.0], "all zeros"),
        (packed(0.0, -0.0), "all zeros"),
        ([NAN, 0.5], "NaN or infinity"),
        (packed(0.5, NAN), "NaN or infinity"),
        (packed(-INFINITY, 0.5), "NaN or infinity"),
        ([1e300, 0.5], "NaN or infinity"),
        (base64.b64encode(b"1234567").decode(), "7 bytes"),
        ("?!", "not base64"),
        ([0.5], "1 numbers, unlike others"),
        ([0.5, 0.5, 0.5], "3 numbers, unlike others"),
    ],
)
def test_a_vector_that_is_not_sound_names_its_text(vector: Any, why: str, raw: bool):
    request = build(EMBED, (["a", "b", "c"],), {"raw": raw})
    with pytest.raises(UnsoundVectorsError, match="answered 200 with") as raised:
        answer(request, vectors(GOOD, vector, packed(*GOOD)))
    assert list(raised.value.problems) == [1]
    assert why in raised.value.problems[1]


def test_all_bad_texts_are_named_at_once():
    request = build(EMBED, (["a", "b", "c"],), {})
    with pytest.raises(UnsoundVectorsError) as raised:
        answer(request, vectors(None, GOOD, [0.0, 0.0]))
    assert list(raised.value.problems) == [0, 2]
    many = told(dict.fromkeys(range(12), "no vector"))
    assert many.startswith("text 0 (no vector), text 1 (no")
    assert many.endswith("and 2 more")


@pytest.mark.parametrize(
    ("indexes", "order"),
    [
        ((1, 0), "ba"),
        ((0, 1), "ab"),
        ((0, 0), "ab"),
        ((None, None), "ab"),
        ((None, 1), "ab"),
    ],
)
def test_what_belongs_to_what_is_known_by_the_index(indexes: Any, order: str):
    entries = [
        {"index": index, "of": text} for index, text in zip(indexes, "ab", strict=True)
    ]
    assert "".join(entry["of"] for entry in in_order(entries)) == order


@pytest.mark.parametrize("indexes", [(1, 1, 0), (1, 2, 3), (None, 0, 1), ("x", 1, 2)])
def test_what_belongs_to_what_must_be_known(indexes: Any):
    response = {"data": [{"index": each, "embedding": [0.5]} for each in indexes]}
    with pytest.raises(EngineFault, match="wrong shape"):
        answer(build(EMBED, (["a", "b", "c"],), {}), response)


def test_large_and_tiny_numbers_are_sound():
    numbers = [3.4e38, -3.4e38, 1e-30, 0.0]
    for vector in (numbers, packed(*numbers)):
        found = answer(EMBEDDING, vectors(vector)).floats()
        assert found == pytest.approx(numbers)


def test_a_length_that_the_engine_never_gave_is_wrong():
    lengths = Counter({2: 5})
    assert answer(EMBEDDING, vectors(GOOD), lengths).floats() == GOOD
    with pytest.raises(UnsoundVectorsError, match=r"text 0 .*3 numbers"):
        answer(EMBEDDING, vectors([0.5] * 3), lengths)


def test_one_wrong_length_at_first_does_not_stay_the_measure():
    lengths: Counter[int] = Counter()
    answer(EMBEDDING, vectors([0.5]), lengths)
    for _ in range(2):
        assert answer(EMBEDDING, vectors(GOOD), lengths).floats() == GOOD
    lengths.update({2: 1})
    with pytest.raises(UnsoundVectorsError):
        answer(EMBEDDING, vectors([0.5]), lengths)


def test_numbers_that_are_no_float32_are_left_alone():
    request = build(EMBED, ("a",), {"raw": True, "extra_body": {"embed_dtype": "fp8"}})
    response = vectors(base64.b64encode(b"123").decode())
    assert answer(request, response) is response
