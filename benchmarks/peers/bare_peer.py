"""A bare asyncio client without a queue: what the engine and its client give."""

import asyncio
import sys

from benchmarks.peers import calls, producer


async def main(number: int) -> None:
    gate = asyncio.Semaphore(calls.IN_FLIGHT)

    async def one(place: int) -> None:
        async with gate:
            await calls.complete_async(producer.prompt(place))

    await asyncio.gather(*map(one, range(number)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
