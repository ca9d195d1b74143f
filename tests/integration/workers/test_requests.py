"""What requests may say, on a real worker."""

import pytest

from modelserver.errors import RequestError
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite

#: The tokens that the test engine takes, prompt and answer together.
CONTEXT_LENGTH = 32768


def test_complete_generates_as_many_tokens_as_the_fleet_says(fleet: FleetSite):
    raw = fleet.complete.delay("a", model="other", raw=True).get(PATIENCE)
    assert raw["usage"]["completion_tokens"] == 256


def test_a_prompt_without_room_for_that_is_answered_all_the_same(fleet: FleetSite):
    prompt = "word " * (CONTEXT_LENGTH - 100)
    raw = fleet.complete.delay(prompt, model="other", raw=True).get(PATIENCE)
    assert raw["usage"]["completion_tokens"] == 16
    with pytest.raises(RequestError, match="exceed the context length"):
        fleet.complete.delay(prompt, model="other", max_tokens=256).get(PATIENCE)


def test_token_ids_are_looked_up_in_the_vocabulary(fleet: FleetSite):
    with pytest.raises(RequestError, match=r"vocabulary is unknown.*send text"):
        fleet.complete.delay([1, 2]).get(PATIENCE)
    fleet.report("writer-0", vocabulary=100)
    eventually(lambda: _is_answered(fleet, [5]), PATIENCE)
    assert fleet.complete.delay([1, 99]).get(PATIENCE) == answer_text("1 99")
    with pytest.raises(RequestError, match=r"id 100 is beyond its vocabulary of 100"):
        fleet.complete.delay([1, 100]).get(PATIENCE)


def _is_answered(fleet: FleetSite, prompt: list[int]) -> bool:
    try:
        return bool(fleet.complete.delay(prompt).get(PATIENCE))
    except RequestError:
        return False  # The worker has not read the report yet.


def test_what_only_the_engine_knows_reaches_it(fleet: FleetSite):
    with pytest.raises(RequestError, match="rid must be a string"):
        fleet.complete.delay("a", extra_body={"rid": 3}).get(PATIENCE)
