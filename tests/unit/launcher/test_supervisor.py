"""What a fault at one engine does to the others of its launcher."""

import asyncio
import errno
import logging
import subprocess
from pathlib import Path

import pytest

from launcher.engine.keeper import Keeper
from launcher.engine.node_keepers import NodeKeepers
from launcher.engine.start import adopt_start
from launcher.engine.stop import kill
from launcher.fleet_sync import FleetSync
from launcher.host.process import EngineProcess, Identity
from launcher.host.records import Record
from launcher.host.resources import HostResources
from launcher.store_link import StoreView
from launcher.supervisor import Supervisor
from modelserver.births import Birth, find_birth
from modelserver.control.applied_fleet import unknown
from modelserver.settings import load
from modelserver.values import EngineSpec, EngineState, Kind, ModelSpec, NodePlace, Wish
from tests.support.launcher_resources import open_resources
from tests.support.processes import lives

MODEL = ModelSpec("m", Kind.COMPLETION, "", "external")


SPEC = EngineSpec("m-0", "m", "b", url="http://127.0.0.1:1")


class FaultyKeeper(Keeper):
    """One whose tick fails until it is mended."""

    is_broken = True
    ticks = 0

    def tick(self, now: float, view: StoreView) -> None:
        self.ticks += 1
        if self.is_broken:
            raise KeyError("tick")


def keeper(number: int, resources: HostResources) -> FaultyKeeper:
    spec = EngineSpec(f"m-{number}", "m", "b", url="http://127.0.0.1:1")
    return FaultyKeeper(spec, MODEL, resources)


def test_a_fault_at_one_engine_keeps_no_other_from_its_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told = (
        "engine m-0: its launcher fails to keep it (KeyError('tick')); its log has "
        "where; it is tried again, and the others go on"
    )

    async def run() -> None:
        async with asyncio.timeout(60), open_resources(tmp_path, {}) as resources:
            settings = load({"MODELSERVER_HOME": str(tmp_path)})
            sync = FleetSync(unknown(settings.fleet.redis), settings, resources.link)
            supervisor = Supervisor(sync, resources)
            bad, good = keeper(0, resources), keeper(1, resources)
            good.is_broken = False
            supervisor._keepers |= {"m-0": bad, "m-1": good}
            for number in range(3):
                supervisor._tick(float(number))
            assert (bad.ticks, good.ticks) == (3, 3)
            assert resources.troubles.now == (told,)
            supervisor._view = StoreView(read_at=3.0)
            first, second = supervisor._due_reports(3.0)
            assert (first.id, second.reason) == ("m-0", "")
            assert f"engine m-0: {first.reason}" == told
            bad.is_broken = False
            supervisor._tick(4.0)
            assert resources.troubles.now == ()
            assert (bad.ticks, good.ticks) == (4, 4)

    asyncio.run(run())
    said = [record.getMessage() for record in caplog.records]
    assert said.count("engine m-0: the launcher fails to keep it") == 1
    assert said.count("engine m-0: the launcher can keep it again") == 1


def test_what_the_host_is_short_of_ends_no_engine(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), open_resources(tmp_path, {}) as resources:
            identity = Identity(child.pid, 0.0, "mark", birth=born)
            record = Record(SPEC, 1, identity, 1, (), 0, 0.0)
            running = Keeper(SPEC, MODEL, resources)
            running.adopt(record)
            running._background.start_question(fail(errno.EMFILE))
            await asyncio.sleep(0)
            running.tick(0.0, StoreView())
            assert running.life.state is EngineState.STARTING
            assert running._start
            assert "ulimit -n" in running._start.fault
            running._background.drop_question()
            running._background.start_question(fail(errno.EINVAL))
            await asyncio.sleep(0)
            running.tick(0.0, StoreView())
            assert running.life.state is EngineState.BACKOFF

    async def fail(number: int) -> None:
        raise OSError(number, "no")

    with subprocess.Popen(["sleep", "300"]) as child:
        born = find_birth(child.pid) or Birth()
        try:
            asyncio.run(run())
        finally:
            child.kill()


class FaultyProcess(EngineProcess):
    """One that cannot be ended at the first try, as for want of a thread."""

    tries = 0

    def kill(self, seconds: float = 10.0) -> list[str]:
        self.tries += 1
        if self.tries == 1:
            raise RuntimeError("can't start new thread")
        return super().kill(seconds)


def test_what_could_not_be_ended_is_not_forgotten(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), open_resources(tmp_path, {}) as resources:
            identity = Identity(child.pid, 0.0, "", birth=born)
            record = Record(SPEC, 1, identity, 1, (), 0, 0.0)
            start = adopt_start(record, MODEL, resources)
            start.process = FaultyProcess(identity)
            await kill(start, None, 0, resources)
            assert start.process.tries == 2
            assert resources.troubles.now == ()

    # It leads a group of its own, as engines do.
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as child:
        born = find_birth(child.pid) or Birth()
        try:
            asyncio.run(run())
            assert not lives(child.pid)
        finally:
            child.kill()


def test_a_wish_that_cannot_be_obeyed_keeps_no_other_node_from_its_own(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), open_resources(tmp_path, {}) as resources:
            nodes = NodeKeepers(resources)
            elsewhere, here = NodePlace("c"), NodePlace("b")
            wishes = {
                f"m-{number}": Wish(EngineSpec(f"m-{number}", "m", "a", followers=(p,)))
                for number, p in enumerate((elsewhere, here))
            }
            nodes.apply_wishes(wishes, {"m": MODEL}, ())
            assert "m-1" in nodes
            (trouble,) = resources.troubles.now
            assert trouble.startswith("node of engine m-0: its launcher fails to obey")

    asyncio.run(run())


def test_an_engine_whose_fault_is_over_with_it_is_told_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), open_resources(tmp_path, {}) as resources:
            troubles = resources.troubles
            with troubles.guard("engine m-1", "keep it"):
                raise RuntimeError
            with troubles.guard("engine m-10", "keep it"):
                raise RuntimeError
            troubles.forget("engine m-1")
            assert troubles.about("engine m-1") == ""
            assert len(troubles.now) == 1

    asyncio.run(run())
