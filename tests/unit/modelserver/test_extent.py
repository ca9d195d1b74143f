"""What a body holds, counted before it is parsed."""

import random

import orjson
import pytest

from modelserver import extent
from modelserver.extent import find_excess


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" + b"1," * 2_000_001 + b"1]", "2,000,000 values"),
        (b"[" + b"[]," * 200_001 + b"1]", "200,000 lists and objects"),
        (b"[" + b'{"a":1},' * 200_001 + b"1]", "200,000 lists and objects"),
        (b"[" + b'"",' * 200_001 + b"1]", "200,000 texts and names"),
        (b"[" + b'"\\\\",' * 200_001 + b"1]", "200,000 texts and names"),
        (b"[" + b"1," * 1_999_000 + b"1]", ""),
        (b'["' + b"{[,]}" * 2_000_001 + b'"]', ""),
        (b'["' + b'\\",' * 2_000_001 + b'"]', ""),
        (b'["' + b"\\\\" * 2_000_001 + b'"]', ""),
        (b'["\\\\",' + b"1," * 2_000_001 + b"1]", "2,000,000 values"),
        (b'["\\\\\\"' + b"1," * 2_000_001 + b'"]', ""),
        (b"", ""),
        (b"\\", ""),
    ],
)
def test_what_is_too_much_is_found(content: bytes, told: str):
    assert find_excess(content) == told


def test_texts_are_told_from_values_wherever_a_piece_ends(
    monkeypatch: pytest.MonkeyPatch,
):
    chance = random.Random(3)
    monkeypatch.setattr(extent, "SHORT_BYTES", 0)
    for _ in range(300):
        texts = ["".join(chance.choices('a\\",[', k=chance.randint(0, 9)))] * 3
        numbers = [chance.randrange(1000) for _ in range(chance.randint(1, 9))]
        content = orjson.dumps([*texts, *numbers, *texts])
        commas = len(numbers) + 5
        monkeypatch.setattr(extent, "PIECE_BYTES", chance.randint(2, 40))
        monkeypatch.setattr(extent, "MOST_VALUES", commas + 1)
        assert not find_excess(content)
        monkeypatch.setattr(extent, "MOST_VALUES", commas)
        assert find_excess(content), content
