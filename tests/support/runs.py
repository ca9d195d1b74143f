"""Rows of runs in tests, and their answers by number."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from modelserver.messaging.wire import COMPLETE
from modelserver.runs.lane import Lane
from modelserver.runs.rows import Answered, Row
from tests.engine.openai_api import answer_text
from tests.support.workers import PATIENCE, FleetSite


def open_lane(fleet: FleetSite, **options: Any) -> Lane:
    """The lane of a run of a test's own."""
    return Lane(fleet.app, f"run-{uuid.uuid4().hex[:8]}", **options)


def prompt_of(number: int) -> str:
    """The prompt of a row."""
    return f"row {number}"


def make_rows(numbers: Sequence[int], **parameters: Any) -> list[Row]:
    """Rows that complete their own prompts."""
    return [Row(number, COMPLETE, prompt_of(number), parameters) for number in numbers]


def collect(lane: Lane, number: int, within: float = PATIENCE) -> dict[int, Answered]:
    """So many answers by number, settled; fails where a row is answered twice."""
    found: dict[int, Answered] = {}
    ends_at = time.monotonic() + within
    while len(found) < number:
        assert time.monotonic() < ends_at, f"{len(found)} of {number} answers"
        for each in lane.receive(0.5):
            assert each.number not in found, f"row {each.number} came twice"
            found[each.number] = each
    lane.settle(found)
    return found


def kinds(found: dict[int, Answered]) -> dict[int, str]:
    """By number: the kind of each error, "" for an answer."""
    return {n: each.error.kind if each.error else "" for n, each in found.items()}


def assert_answered(found: dict[int, Answered], numbers: Sequence[int]) -> None:
    """These rows have the right answer, and no others are there."""
    values = {number: each.value for number, each in found.items()}
    assert values == {number: answer_text(prompt_of(number)) for number in numbers}
