"""Answers to any iterable of prompts, by real workers."""

import asyncio
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from modelserver.api import client
from modelserver.errors import AnswerFormError, RequestError, UnknownModelError
from modelserver.runs.mapping import PromptRun
from modelserver.runs.mapping import map_prompts as map_any
from modelserver.runs.rollouts.mapping import map_rows
from modelserver.settings import load
from tests.engine.openai_api import answer_text
from tests.support.processes import ROOT, end, eventually
from tests.support.workers import PATIENCE, FleetSite

PROMPTS = [f"prompt {place}" for place in range(300)]


def map_prompts(fleet: FleetSite, prompts: Any, **more: Any) -> PromptRun:
    return map_any(prompts, app=fleet.app, **{"model": "writer", **more})


def test_answers_come_in_order(fleet: FleetSite):
    answers = list(map_prompts(fleet, iter(PROMPTS)))
    assert [answer.prompt for answer in answers] == PROMPTS
    assert [answer.text for answer in answers] == [answer_text(p) for p in PROMPTS]
    assert {answer.engine for answer in answers} == {"writer-0"}
    assert all(answer.usage["completion_tokens"] for answer in answers)


def test_a_model_is_named_where_none_of_several_is_the_default(
    fleet: FleetSite, tmp_path: Path
):
    path = tmp_path / "fleet.toml"
    text = fleet.settings.fleet_file.read_text()
    path.write_text(text.replace('completion = "writer"\n', ""))
    app = client(load(fleet.environment | {"MODELSERVER_FLEET": str(path)}))
    run = map_any(PROMPTS[:3], model="writer", app=app)
    assert [each.text for each in run] == [answer_text(p) for p in PROMPTS[:3]]
    with pytest.raises(UnknownModelError, match="none is the default"):
        list(map_any(PROMPTS, app=app))


def test_answers_come_in_any_order_where_that_is_asked(fleet: FleetSite):
    answers = list(map_prompts(fleet, PROMPTS, ordered=False))
    assert sorted(answer.number for answer in answers) == list(range(300))
    assert all(each.text == answer_text(each.prompt) for each in answers)


def test_an_asyncio_loop_gets_them(fleet: FleetSite):
    async def main() -> list[str]:
        return [each.text async for each in map_prompts(fleet, PROMPTS)]

    assert asyncio.run(main()) == [answer_text(prompt) for prompt in PROMPTS]


def test_a_loop_that_is_left_takes_back_what_waits(fleet: FleetSite):
    async def main() -> None:
        async for _ in map_prompts(fleet, itertools.repeat("endless")):
            break

    asyncio.run(main())
    eventually(lambda: not fleet.held(), within=PATIENCE)
    for _ in map_prompts(fleet, itertools.repeat("endless")):
        break
    eventually(lambda: not fleet.held(), within=PATIENCE)


def test_an_endless_iterable_is_read_as_answers_come(fleet: FleetSite):
    pulled = itertools.count()
    texts = (f"text {place}" for place in pulled)
    answers = list(itertools.islice(map_prompts(fleet, texts), 500))
    assert len(answers) == 500
    assert next(pulled) < 2_000


def test_chats_and_templates(fleet: FleetSite):
    chat = [{"role": "user", "content": "hello"}]
    (answer,) = map_prompts(fleet, [chat])
    assert answer.text == answer_text("hello")
    rows = [{"text": "one", "n": 1}, {"text": "two", "n": 2}]
    answers = list(map_prompts(fleet, rows, template="{n}. {text}"))
    assert [each.text for each in answers] == [
        answer_text(t) for t in ("1. one", "2. two")
    ]
    assert answers[1].prompt == rows[1]
    (answer,) = map_prompts(fleet, ["hello"], is_chat=True)
    assert "message" in answer.body["choices"][0]


def rows() -> Iterator[Any]:
    yield "fine"
    yield float("nan")
    yield ""
    yield "also fine"


def test_a_wrong_prompt_is_returned_as_an_error(fleet: FleetSite):
    answers = list(map_prompts(fleet, rows(), on_error="return"))
    assert [each.error is None for each in answers] == [True, False, False, True]
    assert isinstance(answers[1].error, RequestError)
    assert "prompt 1: " in str(answers[1].error)


def test_a_wrong_prompt_is_skipped(fleet: FleetSite):
    run = map_prompts(fleet, rows(), on_error="skip")
    assert [answer.number for answer in run] == [0, 3]
    assert (run.done, run.failed) == (4, 2)


def test_a_wrong_prompt_is_raised_after_what_came_before(fleet: FleetSite):
    answers = iter(map_prompts(fleet, rows()))
    assert next(answers).number == 0
    with pytest.raises(RequestError, match="prompt 1: "):
        next(answers)


def test_what_an_engine_refuses_is_an_error_of_its_row(fleet: FleetSite):
    fleet.engines["writer-0"].fault(status=400, marked="prompt 7")
    answers = list(map_prompts(fleet, PROMPTS[:20], on_error="return"))
    assert [each.number for each in answers if each.error] == [7]


def test_identical_prompts_are_asked_once(fleet: FleetSite):
    before = fleet.engines["writer-0"].stats()["received"]
    prompts = ["same"] * 200 + PROMPTS[:10] + ["same"] * 200
    answers = list(map_prompts(fleet, prompts, temperature=0))
    assert [each.text for each in answers] == [answer_text(p) for p in prompts]
    assert fleet.engines["writer-0"].stats()["received"] - before == 11


def test_a_later_run_finds_answers_in_the_file(fleet: FleetSite, tmp_path: Path):
    def run(**more: Any) -> tuple[list[str], int]:
        options = {"cache": tmp_path / "answers", **more}
        found = map_prompts(fleet, ["cached", *PROMPTS[:50], "cached"], **options)
        answers = list(found)
        assert sum(each.cached for each in answers) == found.cached
        return [each.text for each in answers], found.cached

    before = fleet.engines["writer-0"].stats()["received"]
    first, hits = run()
    assert hits == 1
    assert run() == (first, 52)
    assert run(seed=7) == (first, 1)
    assert fleet.engines["writer-0"].stats()["received"] - before == 2 * 51


class City(BaseModel):
    name: str


def test_an_answer_of_the_wrong_form_is_asked_for_again(fleet: FleetSite):
    before = fleet.engines["writer-0"].stats()["received"]
    run = map_prompts(fleet, ["a city"], response_format=City, on_error="return")
    (answer,) = run
    assert isinstance(answer.error, AnswerFormError)
    received = fleet.engines["writer-0"].stats()["received"] - before
    assert received == (1 if answer.cut_off else 3)


def test_parameters_of_numpy_are_taken(fleet: FleetSite):
    numpy = pytest.importorskip("numpy")
    given = {"max_tokens": numpy.int64(3), "temperature": numpy.float32(0.5)}
    given |= {"priority": numpy.int64(3), "deadline": numpy.float32(PATIENCE)}
    (answer,) = map_prompts(fleet, ["hi"], **given)
    assert answer.usage["completion_tokens"] == 3
    sent = fleet.complete.apply_async(("hi",), priority=numpy.int64(3))
    assert sent.get(timeout=PATIENCE) == answer_text("hi")

    async def solve(row: str) -> Any:
        return await fleet.complete.aio(row)

    limits = {"at_once": numpy.int64(2), "priority": numpy.int64(3)}
    limits |= {"deadline": numpy.float32(PATIENCE)}
    (done,) = map_rows(solve, ["hi"], app=fleet.app, **limits)
    assert done.value == answer_text("hi")


def test_an_unknown_parameter_is_refused_before_anything_is_sent(fleet: FleetSite):
    with pytest.raises(RequestError, match="temperature"):
        list(map_prompts(fleet, ["a"], temprature=0))
    assert json.dumps(City.model_json_schema())


WRONG_CALLS: list[dict[str, Any]] = [
    {"model": "wrter"},
    {"model": "vectors"},
    {"temprature": 0},
    {"max_tokens": "many"},
    {"max_tokens": 5_000_000},
    {"deadline": -1},
    {"stream": True},
    {"priority": -1},
]


@pytest.mark.parametrize("on_error", ["return", "skip"])
@pytest.mark.parametrize("wrong", WRONG_CALLS, ids=str)
def test_what_is_wrong_with_the_call_is_raised_and_no_error_of_prompts(
    fleet: FleetSite, wrong: dict[str, Any], on_error: str
):
    prompts = [None, *PROMPTS[:3]]
    with pytest.raises(RequestError, match=r"^(?!prompt \d)"):
        list(map_prompts(fleet, prompts, on_error=on_error, **wrong))


def test_a_stray_text_among_messages_fails_alone(fleet: FleetSite):
    tools = [{"type": "function", "function": {"name": "f"}}]
    chat = [{"role": "user", "content": "hello"}]
    run = map_prompts(fleet, ["stray", chat], tools=tools, on_error="return")
    assert [each.error is None for each in run] == [False, True]


def hanging(fleet: FleetSite) -> bool:
    stats = fleet.engines["writer-0"].stats()
    ended = stats["completed"] + stats["aborted"] + stats["refused"]
    return bool(stats["received"] > ended)


def test_ctrl_c_takes_back_what_waits_and_says_what_is_done(fleet: FleetSite):
    # What has a 9 in it hangs, and with it the order.
    fleet.engines["writer-0"].fault(hang=True, marked="prompt 9", rate=0.999)
    program = (
        "from modelserver import map_prompts\n"
        "prompts = [f'prompt {place}' for place in range(2_000)]\n"
        "for answer in map_prompts(prompts, model='writer'):\n"
        "    answer.number or print('begun', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **fleet.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline()
    eventually(lambda: hanging(fleet), PATIENCE)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[1].decode()
    assert re.search(r"\d+ of 2,000 prompts are answered; [\d,]+ that waited", said)
    fleet.engines["writer-0"].fault()
    eventually(lambda: not fleet.held(), within=PATIENCE)


def prompts_of(fleet: FleetSite) -> Any:
    return map_prompts(fleet, map(str, itertools.count()))


def rows_of(fleet: FleetSite) -> Any:
    async def solve(row: int) -> Any:
        return await fleet.complete.aio(f"interrupted {row}")

    return map_rows(solve, itertools.count(), at_once=20, app=fleet.app)


def loop_over(run: Any) -> None:
    for _ in run:
        signal.raise_signal(signal.SIGINT)


def loop_in_asyncio(run: Any) -> None:
    async def loop() -> None:
        async for _ in run:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)

    asyncio.run(loop())


@pytest.mark.parametrize("loop", [loop_over, loop_in_asyncio])
@pytest.mark.parametrize("run_of", [prompts_of, rows_of])
def test_ctrl_c_with_an_answer_in_hand_says_what_is_done(
    fleet: FleetSite,
    caplog: pytest.LogCaptureFixture,
    run_of: Callable[[FleetSite], Any],
    loop: Callable[[Any], None],
):
    before = signal.getsignal(signal.SIGINT)
    with (
        caplog.at_level(logging.WARNING, "modelserver.runs"),
        pytest.raises(KeyboardInterrupt),
    ):
        loop(run_of(fleet))
    (said,) = caplog.messages
    assert re.match(r"\d+ (prompts are answered|rows are done)", said), said
    assert signal.getsignal(signal.SIGINT) == before


def test_a_loop_that_is_left_otherwise_says_nothing(
    fleet: FleetSite, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "modelserver.runs"):
        for run in (prompts_of(fleet), rows_of(fleet)):
            for _ in run:
                break
    assert caplog.messages == []


def test_what_was_answered_is_not_asked_again_after_a_kill(
    fleet: FleetSite, tmp_path: Path
):
    def executed() -> dict[str, int]:
        found = fleet.engines["writer-0"].stats()["executed"]
        return {text: n for text, n in found.items() if text.startswith("killed")}

    fleet.engines["writer-0"].fault(slow=3)
    program = (
        "from modelserver import map_prompts\n"
        "prompts = (f'killed {place}' for place in range(60))\n"
        f"list(map_prompts(prompts, model='writer', journal='{tmp_path / 'j'}'))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **fleet.environment},
    )
    try:
        eventually(lambda: len(executed()) > 10, within=PATIENCE)
    finally:
        end(process, PATIENCE)
    fleet.engines["writer-0"].fault()
    prompts = [f"killed {place}" for place in range(60)]
    found = list(map_prompts(fleet, prompts, journal=tmp_path / "j"))
    assert [each.text for each in found] == [answer_text(text) for text in prompts]
    assert executed() == dict.fromkeys(prompts, 1)
