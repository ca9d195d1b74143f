"""What a worker makes of an engine's HTTP, on a real engine of the tests."""

import asyncio
from collections.abc import Iterator

import pytest

from modelserver.engine_client import EngineFault, ask, open_session
from tests.engine.process import EngineProcess


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    process = EngineProcess("--model", "m")
    yield process
    process.kill()


async def refusal_of(engine: EngineProcess) -> EngineFault:
    async with open_session() as session:
        with pytest.raises(EngineFault) as raised:
            await ask(session, f"{engine.url}/v1/completions", {"prompt": "a"})
        return raised.value


@pytest.mark.parametrize(
    ("asked", "waited"), [(3, 3.0), (86_400, 10.0), (0, 0.0), (-86_400, 0.0)]
)
def test_an_engine_asks_for_no_more_than_a_short_wait(
    engine: EngineProcess, asked: int, waited: float
):
    engine.fault(status=503, retry_after=asked)
    assert asyncio.run(refusal_of(engine)).retry_after == waited
