"""Names of keys that are made of what people say."""

import pytest

from modelserver.store.keys import SUBMITTER_LENGTH, Keys, list_name


@pytest.mark.parametrize("name", ["a\nb", "\x06\x16from:x", "\x00", "\x7f", "\ud83d"])
def test_a_submitter_has_no_character_that_names_of_lists_cannot_have(name: str):
    said = list_name(name)
    assert said.isprintable()
    said.encode()


def test_a_submitter_with_a_long_name_has_a_list_of_its_own():
    one, other = list_name("a" * 9999), list_name("a" * 9998)
    assert one != other
    assert len(one) == SUBMITTER_LENGTH


def test_a_usual_submitter_keeps_its_name():
    assert list_name("gen12@host") == "gen12@host"
    assert list_name("组 A/b%") == "组 A/b%"
    assert list_name(None) == ""


def test_a_list_is_found_by_the_submitters_own_name():
    assert Keys("ms:").of_submitter("ms:m", "team\nA").endswith("from:team%0AA")
