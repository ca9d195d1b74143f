"""A real Chromium without a window, told what to do over its DevTools protocol."""

import asyncio
import base64
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.processes import eventually

#: The browser of this machine, None where it has none.
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
#: No profile of anybody's, no network of its own, nothing that asks the user.
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
#: A step takes no longer, in seconds.
STEP_SECONDS = 60.0
#: What is waited for is looked at so often, in seconds.
LOOK_SECONDS = 0.05


@dataclass
class Tab:
    """One page of the browser."""

    socket: aiohttp.ClientWebSocketResponse
    #: What scripts complained of, and what the page's policy refused.
    complaints: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def call(self, method: str, **values: Any) -> Any:
        """One command of the protocol; its result."""
        number = next(self._numbers)
        told = {"id": number, "method": method, "params": values}
        await self.socket.send_json(told)
        async with asyncio.timeout(STEP_SECONDS):
            while True:
                found = await self.socket.receive_json()
                self._listen(found)
                if found.get("id") == number:
                    assert "error" not in found, (method, found)
                    return found["result"]

    def _listen(self, event: Any) -> None:
        values = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded":
            entry = values["entry"]
            if entry["source"] != "network" and entry["level"] == "error":
                self.complaints.append(entry["text"])

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def wait_for(self, script: str) -> None:
        """Wait until an expression holds; a page that is loading says nothing."""
        async with asyncio.timeout(STEP_SECONDS):
            while True:
                # While one page gives way to another there is nothing to ask.
                with suppress(AssertionError):
                    if await self.run(f"Boolean({script})"):
                        return
                await asyncio.sleep(LOOK_SECONDS)

    async def open(self, url: str) -> None:
        """Load a page, whole."""
        await self.call("Page.navigate", url=url)
        await self.wait_for(
            f"location.href == {url!r} && document.readyState == 'complete'"
        )

    async def log_in(self, url: str, password: str) -> None:
        """Open the fleet page, by its form."""
        await self.open(f"{url}/")
        await self.run(f"document.getElementById('password').value = {password!r}")
        await self.run("document.forms[0].requestSubmit()")
        await self.wait_for("document.querySelector('nav')")

    async def look(self, width: int, height: int, scheme: str = "light") -> None:
        """The size of the window in pixels, and whether it is light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        await self.call(
            "Emulation.setDeviceMetricsOverride", **size, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self) -> bytes:
        """A PNG of the window."""
        found = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(found["data"])


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Tab]:
    """A browser with one empty tab; its profile is in this folder."""
    assert BROWSER, "no chromium or google-chrome is installed"
    process = await asyncio.create_subprocess_exec(
        *(BROWSER, *QUIET, f"--user-data-dir={folder}"),
        *("--remote-debugging-port=0", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        note = folder / "DevToolsActivePort"
        port = await asyncio.to_thread(eventually, lambda: _find_port(note))
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                found = [each for each in await reply.json() if each["type"] == "page"]
            address = found[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                for part in ("Page", "Runtime", "Log"):
                    await tab.call(f"{part}.enable")
                yield tab
    finally:
        process.terminate()
        await process.wait()


def _find_port(path: Path) -> str:
    """The port that the browser has written down, whole; "" before that."""
    told = path.read_text() if path.exists() else ""
    return told.splitlines()[0] if "\n" in told else ""
