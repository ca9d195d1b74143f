"""What a leader hears of a node while that starts, or cannot start yet."""

import asyncio
from pathlib import Path

from launcher.engine.node_keeper import NodeKeeper
from launcher.engine.nodes import NodeWatch
from launcher.store_link import StoreView
from modelserver.policy.lifecycle import Died
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    NodePlace,
)
from tests.support.launcher_resources import open_resources

SPEC = EngineSpec("m-0", "m", "a", followers=(NodePlace("b"),))
MODEL = ModelSpec("m", Kind.COMPLETION, "", "command", command=("sleep",), nodes=2)
CALLS = EngineReport(
    "m-0", "m", "a", EngineState.STARTING, incarnation=3, meeting_port=21000
)
CALLED = StoreView(engines={"m-0": CALLS}, hosts=frozenset("ab"), read_at=0.0)
ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.1"}


def heard(keeper: NodeKeeper) -> Died | None:
    """What the leader makes of the node's report."""
    node = keeper.report()
    view = StoreView(hosts=frozenset("ab"), nodes={("m-0", 1): node}, read_at=0.0)
    end = NodeWatch().find_end(SPEC, CALLS.incarnation, view, 0.0, 0.0)
    assert end is None or isinstance(end, Died)
    return end


def test_a_node_whose_start_takes_long_is_not_gone(tmp_path: Path):
    async def run() -> None:
        async with (
            asyncio.timeout(60),
            open_resources(tmp_path, ADDRESSES) as resources,
        ):
            # As while another engine is prepared.
            await resources.preparing.acquire()
            keeper = NodeKeeper(SPEC, 1, MODEL, resources)
            keeper.tick(0.0, CALLED)
            await asyncio.sleep(0)  # Its start begins.
            assert keeper.report().incarnation == CALLS.incarnation
            assert heard(keeper) is None

    asyncio.run(run())


def test_a_node_that_cannot_start_yet_counts_as_no_fault_of_the_engine(tmp_path: Path):
    async def run() -> None:
        async with (
            asyncio.timeout(60),
            open_resources(tmp_path, {"a": "10.0.0.7"}) as resources,
        ):
            keeper = NodeKeeper(SPEC, 1, MODEL, resources)
            while not (end := heard(keeper)):
                keeper.tick(0.0, CALLED)
                await resources.woken.wait()
                resources.woken.clear()
            why = "host b has no address in [[hosts]]"
            said = f"node 1 on host b cannot start yet: {why}"
            assert end == Died(said, may_heal=True)
            # It says so until its leader has heard it.
            keeper.tick(10.0, CALLED)
            assert keeper.report().reason == why

    asyncio.run(run())
