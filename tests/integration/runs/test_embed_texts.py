"""Vectors of many texts, by real workers."""

import math
from pathlib import Path
from typing import Any

import pytest

from modelserver.errors import RequestError
from modelserver.runs.embedding import embed_texts as embed_any
from tests.support.workers import PATIENCE, FleetSite, answers

TEXTS = [f"text {place}" for place in range(200)]


def embed_texts(fleet: FleetSite, texts: Any, **more: Any) -> Any:
    return embed_any(texts, app=fleet.app, model="vectors", **more)


def row(vectors: Any, place: int) -> list[float]:
    return [float(number) for number in vectors[place]]


def test_vectors_come_in_the_order_of_the_texts(fleet: FleetSite):
    vectors = embed_texts(fleet, iter(TEXTS))
    assert len(vectors) == len(TEXTS)
    (alone,) = answers([fleet.embed.delay("text 17")], PATIENCE)
    assert row(vectors, 17) == alone
    assert row(vectors, 18) != alone


def test_vectors_are_an_array_where_numpy_is_there(fleet: FleetSite):
    numpy = pytest.importorskip("numpy")
    vectors = embed_texts(fleet, numpy.array(TEXTS))
    assert vectors.dtype == numpy.float32
    assert vectors.shape[0] == len(TEXTS)
    assert vectors.shape == embed_texts(fleet, iter(TEXTS)).shape


def test_bad_texts_are_named_by_their_places(fleet: FleetSite):
    texts = ["fine", "", float("nan"), *["fine"] * 20, None]
    with pytest.raises(RequestError, match=r"^3 of the texts .* text 1: .* text 23: "):
        embed_texts(fleet, texts)


@pytest.mark.parametrize("wrong", [{"dimension": 8}, {"deadline": 0}, {"priority": 10}])
def test_what_is_wrong_with_the_call_gives_no_vectors_of_nan(
    fleet: FleetSite, wrong: dict[str, Any]
):
    with pytest.raises(RequestError, match=r"dimension|deadline|priority"):
        embed_texts(fleet, TEXTS[:3], on_error="nan", **wrong)


def test_a_bad_text_may_have_a_vector_of_nan(fleet: FleetSite):
    fleet.engines["vectors-0"].fault(shape="nan", marked="spoiled")
    vectors = embed_texts(fleet, ["fine", "spoiled", "", "fine"], on_error="nan")
    assert [math.isnan(row(vectors, place)[0]) for place in range(4)] == [
        *(False, True, True, False)
    ]
    assert row(vectors, 0) == row(vectors, 3)


def test_vectors_come_from_the_journal_and_from_the_cache(
    fleet: FleetSite, tmp_path: Path
):
    def embed(texts: list[str], **more: Path) -> list[list[float]]:
        vectors = embed_texts(fleet, texts, **more)
        return [row(vectors, place) for place in range(len(texts))]

    texts = TEXTS[:30]
    first = embed(texts, journal=tmp_path / "j")
    assert embed(texts[::-1], journal=tmp_path / "j") == first[::-1]
    asked = fleet.engines["vectors-0"].stats()["completed"]
    assert embed([*texts, *texts], cache=tmp_path / "c") == first + first
    once = fleet.engines["vectors-0"].stats()["completed"]
    assert embed(texts, cache=tmp_path / "c") == first
    assert fleet.engines["vectors-0"].stats()["completed"] == once > asked
