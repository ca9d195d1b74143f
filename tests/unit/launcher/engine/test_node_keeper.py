"""What a leader hears of a node while that starts, or cannot start yet."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from launcher.engine.node_keeper import NodeKeeper
from launcher.engine.nodes import NodeWatch
from launcher.engine.start import start
from launcher.host.allocation import Allocation
from launcher.host.containers import Containers
from launcher.host.gpu_faults import GpuFaults
from launcher.host.incidents import Incidents
from launcher.host.listeners import Listeners
from launcher.host.load_turns import LoadTurns
from launcher.host.needed_files import NeededFiles
from launcher.host.records import Records
from launcher.host.resources import HostResources
from launcher.host.secrets import Secrets
from launcher.store_link import StoreLink, StoreView
from modelserver.engine_client import open_session
from modelserver.fleet.file import Fleet
from modelserver.inventory import Host
from modelserver.keyring import Keyring
from modelserver.policy.lifecycle import Died, Held
from modelserver.store.server.state import open_store
from modelserver.values import (
    EngineReport,
    EngineSpec,
    EngineState,
    Kind,
    ModelSpec,
    NodePlace,
)
from tests.support.processes import gpus

SPEC = EngineSpec("m-0", "m", "a", followers=(NodePlace("b"),))
MODEL = ModelSpec("m", Kind.COMPLETION, "", "command", command=("sleep",), nodes=2)
CALLS = EngineReport(
    "m-0", "m", "a", EngineState.STARTING, incarnation=3, meeting_port=21000
)
CALLED = StoreView(engines={"m-0": CALLS}, hosts=frozenset("ab"), read_at=0.0)
ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.1"}
#: Nobody listens there.
CLOSED = "redis://127.0.0.1:1/0"


@asynccontextmanager
async def host(
    folder: Path, addresses: Mapping[str, str] = ADDRESSES
) -> AsyncIterator[HostResources]:
    keys = Keyring(folder / "keys")
    link = StoreLink(open_store(CLOSED, "test:", retries=0), Host("b", pid=1), 1.0)
    async with open_session(keys=keys) as session:
        yield HostResources(
            home=folder,
            logs=folder / "logs",
            host="b",
            records=Records(folder / "engines"),
            allocation=Allocation("b", lambda: gpus(1)),
            session=session,
            keys=keys,
            link=link,
            incidents=Incidents(folder, link),
            secrets=Secrets(Fleet(), folder / "fleet.toml"),
            containers=Containers("", owner=str(folder)),
            gpu_faults=GpuFaults(),
            turns=LoadTurns(),
            files=NeededFiles(folder),
            listeners=Listeners(),
            addresses=lambda: addresses,
            preparing=asyncio.Lock(),
            woken=asyncio.Event(),
        )
    link.close()


def heard(keeper: NodeKeeper) -> Died | None:
    """What the leader makes of the node's report."""
    node = keeper.report()
    view = StoreView(hosts=frozenset("ab"), nodes={("m-0", 1): node}, read_at=0.0)
    end = NodeWatch().find_end(SPEC, CALLS.incarnation, view, 0.0, 0.0)
    assert end is None or isinstance(end, Died)
    return end


def test_a_node_whose_start_takes_long_is_not_gone(tmp_path: Path):
    async def run() -> None:
        async with asyncio.timeout(60), host(tmp_path) as resources:
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
        async with asyncio.timeout(60), host(tmp_path, {"a": "10.0.0.7"}) as resources:
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


def test_an_engine_that_could_not_be_counted_holds_no_gpu(tmp_path: Path):
    async def run() -> None:
        one = ModelSpec("n", Kind.COMPLETION, "", "command", command=("sleep",), gpus=1)
        async with host(tmp_path) as resources:
            first, other = (
                EngineSpec(f"n-{number}", "n", "b", uuids=("GPU-0",))
                for number in (0, 1)
            )
            assert isinstance(await start(first, one, resources), Held)
            assert await resources.allocation.find_refusal(other, one) == ""

    asyncio.run(run())
