"""Starts of engines: what keeps them from one, and as what they count."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

from launcher.engine.keeper import Keeper
from launcher.engine.readiness import may_be_unseen
from launcher.engine.start import Joining, Start, adopt_start, find_end, start
from launcher.host import process
from launcher.host.records import Record
from launcher.host.secrets import Secrets
from launcher.store_link import StoreView
from modelserver.fleet.file import Fleet
from modelserver.policy.lifecycle import CannotHeal, Held
from modelserver.values import EngineSpec, Kind, ModelSpec
from tests.support.launcher_resources import open_resources

SPEC = EngineSpec("m-0", "m", "b")
MODEL = ModelSpec("m", Kind.COMPLETION, "", "command", command=("sleep", "300"))


def test_an_adopted_engine_counts_as_what_it_was_started_as(tmp_path: Path):
    """Its log, its processes and its memory are of that type, not of the fleet's."""
    now = replace(MODEL, engine="vllm", command=(), path="org/m")
    identity = process.new_identity()

    async def run() -> None:
        async with open_resources(tmp_path, {}) as resources:
            record = Record(SPEC, 3, identity, 21000, (), 0, 0.0, model=MODEL)
            begun = adopt_start(record, now, resources)
            assert begun.model == MODEL
            assert may_be_unseen(begun)
            older = adopt_start(replace(record, model=None), now, resources)
            assert older.model == now
            # As where the fleet says by now that somebody else runs it.
            foreign = replace(MODEL, engine="external", command=())
            keeper = Keeper(SPEC, foreign, resources)
            keeper.adopt(record)
            assert keeper.report(StoreView()).log == str(resources.log_of("m-0"))
            resources.log_of("m-0").parent.mkdir()
            said = "ModuleNotFoundError: No module named 'x'"
            resources.log_of("m-0").write_text(said)
            end = find_end(begun, resources.log_of("m-0"), starting=True)
            assert isinstance(end, CannotHeal)
            assert "install it where this model's command runs (sleep)" in end.reason

    asyncio.run(run())


def test_files_of_a_disk_that_does_not_answer_hold_up_no_other_engine(tmp_path: Path):
    answers, asked = threading.Event(), threading.Semaphore(0)

    class Hanging(Secrets):
        def fill(self, model: ModelSpec, spec: EngineSpec) -> ModelSpec:
            asked.release()
            assert answers.wait(timeout=20)
            answers.clear()
            return super().fill(model, spec)

    async def run() -> None:
        async with asyncio.timeout(60), open_resources(tmp_path, {}) as resources:
            hanging = Hanging(Fleet(), tmp_path / "fleet.toml")
            resources = replace(resources, secrets=hanging)
            joining = Joining(0, 3, 21_000)
            starting = asyncio.create_task(
                start(SPEC, MODEL, resources, joining=joining)
            )
            # Its files are read twice, and each time the loop goes on meanwhile.
            for _ in range(2):
                assert await asyncio.to_thread(asked.acquire, timeout=20)
                answers.set()
            begun = await starting
            assert isinstance(begun, Start)
            assert begun.process
            assert begun.process.kill() == []

    asyncio.run(run())


def test_an_engine_that_could_not_be_counted_holds_no_gpu(tmp_path: Path):
    async def run() -> None:
        one = ModelSpec("n", Kind.COMPLETION, "", "command", command=("sleep",), gpus=1)
        async with open_resources(tmp_path, {}) as resources:
            first, other = (
                EngineSpec(f"n-{number}", "n", "b", uuids=("GPU-0",))
                for number in (0, 1)
            )
            assert isinstance(await start(first, one, resources), Held)
            assert await resources.allocation.find_refusal(other, one) == ""

    asyncio.run(run())
