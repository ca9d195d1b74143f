"""The fleet page in a real browser; skipped where there is none."""

import asyncio
from pathlib import Path

import pytest

from modelserver.page.server import PageOptions
from tests.support.browser import BROWSER, Tab, open_browser
from tests.support.fleet_records import Records
from tests.support.page_visits import serve_page
from tests.support.processes import ValkeyProcess

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome is installed"
)

PASSWORD = "a heron in the reeds"
FOCUSED = "document.activeElement.getAttribute('href')"


def test_a_page_follows_the_fleet_and_keeps_what_the_reader_does(
    valkey: ValkeyProcess, tmp_path: Path
):
    records = Records.open(tmp_path, valkey.url, ("chat", "absent"))
    records.write(engines=2)
    queue = records.store.keys.queue("absent")[0]

    async def visit(url: str) -> Tab:
        async with open_browser(tmp_path / "profile") as tab:
            await tab.look(390, 844, "dark")
            await tab.log_in(url, PASSWORD)
            await tab.run("document.querySelector('#engines a').focus()")
            await tab.run("document.querySelector('#decisions details').open = true")
            await tab.run("window.isTheSame = true")
            records.store.client.lpush(queue, "{}", "{}", "{}")
            await tab.wait_for("document.body.innerText.includes('123 wait')")
            assert await tab.run("window.isTheSame")
            assert await tab.run(FOCUSED) == "/engines/chat-0"
            assert await tab.run("document.querySelector('#decisions details').open")
            width = await tab.run("document.documentElement.scrollWidth")
            assert width == 390
            return tab

    with serve_page(records.settings, PASSWORD, PageOptions("ada", True)) as page:
        tab = asyncio.run(visit(f"http://127.0.0.1:{page.port}"))
    records.store.client.close()
    assert tab.complaints == []
