"""Requests of asyncio programs: awaited, many at once, cancelled."""

import asyncio
import os
import signal

import pytest
from celery import group
from celery.exceptions import TaskRevokedError

from modelserver.errors import DeadlineExceededError, RequestError
from tests.support.processes import eventually
from tests.support.workers import PATIENCE, FleetSite


def subscribers(fleet: FleetSite) -> int:
    """Connections to the server that have subscribed to results."""
    clients = fleet.store.client.client_list()
    return sum(int(client["sub"]) > 0 for client in clients)


def test_many_are_awaited_over_one_connection(fleet: FleetSite):
    before = subscribers(fleet)
    seen: list[int] = []

    async def ask(place: int) -> str:
        text = await fleet.complete.aio(f"number {place}", max_tokens=4)
        if place == 500:
            seen.append(await asyncio.to_thread(subscribers, fleet))
        return str(text)

    async def main() -> list[str]:
        return await asyncio.gather(*(ask(place) for place in range(1_000)))

    assert len(asyncio.run(main())) == 1_000
    assert seen[0] - before <= 1


def test_each_loop_gets_its_answers(fleet: FleetSite):
    for place in range(3):
        assert asyncio.run(fleet.complete.aio(f"loop {place}"))


def test_results_and_groups_can_be_awaited(fleet: FleetSite):
    async def main() -> None:
        assert await fleet.complete.delay("one")
        job = group(fleet.complete.s(f"part {place}") for place in range(10))()
        assert len(await job) == 10
        assert len(await job) == 10, "a second time"

    asyncio.run(main())


def test_errors_are_raised_where_it_is_awaited(fleet: FleetSite):
    async def main() -> None:
        with pytest.raises(RequestError):
            await fleet.complete.aio("")
        with pytest.raises(DeadlineExceededError):
            await fleet.complete.aio("late", deadline=0.001)
        assert await fleet.complete.apply_aio(("urgent",), {}, priority=3)

    asyncio.run(main())


def test_a_cancelled_await_ends_the_request(fleet: FleetSite):
    fleet.engines["writer-0"].fault(hang=True)
    task = "to-be-cancelled"

    async def main() -> None:
        asked = asyncio.ensure_future(fleet.complete.apply_aio(("x",), task_id=task))
        await asyncio.to_thread(
            eventually, lambda: fleet.in_flight("writer-0"), PATIENCE
        )
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(main())
    eventually(lambda: not fleet.in_flight("writer-0"), within=PATIENCE)
    with pytest.raises(TaskRevokedError):
        fleet.complete.AsyncResult(task).get(timeout=PATIENCE)


def test_a_cancelled_wait_for_a_result_leaves_the_request(fleet: FleetSite):
    sent = fleet.complete.delay("goes on")

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_never(sent), 0.0)

    asyncio.run(main())
    assert sent.get(timeout=PATIENCE)


async def _never(sent: object) -> object:
    return await sent  # type: ignore[misc]


def test_the_loop_is_not_blocked_while_requests_are_sent(fleet: FleetSite):
    server = int(fleet.store.client.info("server")["process_id"])

    async def main() -> list[str]:
        os.kill(server, signal.SIGSTOP)
        try:
            asked = asyncio.gather(*(fleet.complete.aio(f"b {n}") for n in range(1000)))
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not asked.done()
        finally:
            # Nothing is sent before: a loop that waits for that does not come here.
            os.kill(server, signal.SIGCONT)
        return await asked

    assert len(asyncio.run(main())) == 1000
