"""How messages are kept small."""

import json
from typing import Any

import pytest

from modelserver.messaging.envelope import unescaped


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "汉字 😀 é",
        r"a path \u4e2d C:\users",
        'quote " and \\ and \x00 \x1f \x7f',
        "half \ud83d of a character",
        "\u2028 line",
        {"键": ["值", 10**30, 0.1]},
    ],
)
def test_a_body_without_escapes_means_the_same(value: Any):
    body = json.dumps([value])
    assert json.loads(unescaped(body)) == [value]


def test_chinese_text_takes_three_bytes_a_character():
    assert len(unescaped(json.dumps("汉" * 100)).encode()) == 302
