"""A TCP proxy that can stop forwarding without closing anything, as a process."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.processes import end

ROOT = Path(__file__).resolve().parents[2]


class Proxy:
    """Forwards from a port of its own to ``port``; a context manager.

    ``cut`` stops all forwarding: connections stay, new ones are taken, nothing comes
    through, as with a broken link. ``mend`` lets everything through again. ``retarget``
    leads new connections elsewhere, as a name does that is given another address. A
    process of its own: a thread here might have to wait for what it should forward.
    """

    def __init__(self, port: int) -> None:
        self._target = port

    def __enter__(self) -> "Proxy":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.proxy"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.port = self._say(f"target {self._target}")
        self.url = f"redis://127.0.0.1:{self.port}/0"
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)

    def cut(self) -> None:
        """Let nothing through."""
        self._say("cut")

    def mend(self) -> None:
        """Let everything through, what has waited first."""
        self._say("mend")

    def retarget(self, port: int) -> None:
        """Lead new connections to another port; those that there are stay."""
        self._say(f"target {port}")

    def _say(self, command: str) -> int:
        """Have it do something; returns its port when it is done."""
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        into.write(f"{command}\n".encode())
        into.flush()
        return int(out.readline())


class Forwarder:
    """What runs in the process. Commands are lines, each answered by the port."""

    def __init__(self) -> None:
        self._target = 0
        self._open = asyncio.Event()
        self._open.set()

    async def run(self) -> None:
        """Forward and obey until nobody commands any more."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        while line := await asyncio.to_thread(sys.stdin.readline):
            self._obey(*line.split())
            print(port, flush=True)

    def _obey(self, command: str, argument: str = "0") -> None:
        if command == "target":
            self._target = int(argument)
        elif command == "cut":
            self._open.clear()
        else:
            self._open.set()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            try:
                await self._open.wait()
                there = await asyncio.open_connection("127.0.0.1", self._target)
                await asyncio.gather(
                    self._pump(reader, there[1]), self._pump(there[0], writer)
                )
            finally:
                writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


if __name__ == "__main__":
    asyncio.run(Forwarder().run())
