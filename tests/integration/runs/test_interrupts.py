"""Ctrl-C that comes while the caller has an answer in hand."""

import asyncio
import itertools
import logging
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from modelserver.runs.mapping import map_prompts
from modelserver.runs.rollouts.mapping import map_rows
from tests.support.workers import FleetSite


def prompts_of(fleet: FleetSite) -> Any:
    return map_prompts(map(str, itertools.count()), model="writer", app=fleet.app)


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
def test_it_takes_back_what_waits_and_says_what_is_done(
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
