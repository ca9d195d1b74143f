"""How messages are kept small."""

import json
from typing import Any

import pytest

from modelserver.messaging.envelope import SUBMITTER_LENGTH, submitter, unescaped


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


@pytest.mark.parametrize("name", ["a\nb", "\x06\x16from:x", "\x00", "\x7f", "\ud83d"])
def test_a_submitter_has_no_character_that_names_of_lists_cannot_have(name: str):
    said = submitter(name)
    assert said.isprintable()
    said.encode()


def test_a_submitter_with_a_long_name_has_a_list_of_its_own():
    one, other = submitter("a" * 9999), submitter("a" * 9998)
    assert one != other
    assert len(one) == SUBMITTER_LENGTH


def test_a_usual_submitter_keeps_its_name():
    assert submitter("gen12@host") == "gen12@host"
    assert submitter("组 A/b%") == "组 A/b%"
    assert submitter(None) == ""
