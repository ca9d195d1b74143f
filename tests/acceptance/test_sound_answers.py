"""What SGLang refuses in words, and answers of it that have no text."""

import pytest

from modelserver.store.fleet.measurements import read_counters
from modelserver.values import Outcome
from tests.acceptance.bad_requests import BAD_REQUESTS, HELLO, refusal
from tests.acceptance.product import CHAT, EXACT, PATIENCE, Product

pytestmark = pytest.mark.sglang

MODEL = "tiny-chat"


def faults(fleet: Product) -> int:
    return read_counters(fleet.store, CHAT).get(Outcome.ENGINE_FAULT, 0)


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_in_words(fleet: Product, name: str) -> None:
    before = faults(fleet)
    assert "in the same way" not in refusal(fleet, MODEL, name)
    assert faults(fleet) == before


def test_a_stop_text_that_comes_first_leaves_an_empty_text(fleet: Product) -> None:
    asked = EXACT | {"max_tokens": 24}
    before = faults(fleet)
    text = fleet.complete.delay("Once upon a time", **asked).get(PATIENCE)
    found = fleet.complete.delay(
        "Once upon a time", stop=[text[:12]], raw=True, **asked
    )
    [choice] = found.get(PATIENCE)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    said = fleet.chat.delay(HELLO, **asked).get(PATIENCE)
    assert fleet.chat.delay(HELLO, stop=[said[:12]], **asked).get(PATIENCE) == ""
    assert faults(fleet) == before
