"""Nodes of an engine on several hosts: they meet, as torch's processes do.

The first one waits for the others, and hangs for good once it has lost one of them.
The others hang on when they have lost the first.
"""

import asyncio
from collections.abc import Callable

#: Seconds between two attempts to reach the first node.
RETRY_SECONDS = 0.05


async def lead(meeting: str, nodes: int, lose: Callable[[], None]) -> asyncio.Server:
    """Wait for all other nodes; call ``lose`` when one of them is gone later."""
    host, port = meeting.rsplit(":", 1)
    joined = asyncio.Semaphore(0)

    async def welcome(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        print(f"node {(await reader.readline()).decode().strip()} joins", flush=True)
        joined.release()
        await reader.read()
        lose()
        writer.close()

    server = await asyncio.start_server(welcome, host, int(port))
    for _ in range(nodes - 1):
        await joined.acquire()
    return server


async def follow(meeting: str, node: int) -> None:
    """Join the first node, and stay for good."""
    host, port = meeting.rsplit(":", 1)
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            break
        except OSError:
            await asyncio.sleep(RETRY_SECONDS)
    writer.write(f"{node}\n".encode())
    print(f"node {node} has joined", flush=True)
    await reader.read()
    print(f"node {node} has lost the first", flush=True)
    await asyncio.Event().wait()
