"""Vectors of fewer dimensions, beside the whole ones of the same engine."""

import math
from collections.abc import Sequence

import pytest

from modelserver import RequestError
from tests.acceptance.product import PATIENCE, Product

#: The lengths that ``encoders`` says of its models; None for the whole vector.
LENGTHS = (16, 64, 128, None)
#: Lengths that these models do not have.
WRONG_LENGTHS = (8, 256)


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.hypot(*one) / math.hypot(*other)


def check_shorter(fleet: Product, model: str, texts: Sequence[str]) -> None:
    """They are the beginnings of the whole ones; lengths that are not, are refused."""
    whole = fleet.embed.delay(list(texts), model=model).get(PATIENCE)
    # Several lengths at once, so that they meet in one batch of the engine.
    lengths = [LENGTHS[number % len(LENGTHS)] for number in range(len(texts))]
    asked = [
        fleet.embed.delay(text, model=model, **({"dimensions": each} if each else {}))
        for text, each in zip(texts, lengths, strict=True)
    ]
    for result, long, each in zip(asked, whole, lengths, strict=True):
        short = result.get(PATIENCE)
        assert len(short) == (each or len(long))
        assert math.hypot(*short) == pytest.approx(1.0, abs=1e-4)
        assert cosine(short, long[:each]) >= 0.9999
    for wrong in WRONG_LENGTHS:
        with pytest.raises(RequestError, match=f"{model} refused the request: .*"):
            fleet.embed.delay("x", model=model, dimensions=wrong).get(PATIENCE)
