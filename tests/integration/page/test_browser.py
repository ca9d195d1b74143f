"""The fleet page in a real browser; skipped where there is none."""

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modelserver.page.server import PageOptions
from modelserver.store.fleet.alerts import AlertRecord
from modelserver.store.fleet.alerts import add as add_alert
from modelserver.store.fleet.orders import orders
from tests.support.browser import BROWSER, Tab, open_browser
from tests.support.fleet_records import Records
from tests.support.page_visits import serve_page
from tests.support.processes import ValkeyProcess

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome is installed"
)

PASSWORD = "a heron in the reeds"
#: Where axe is, which looks for what keeps people from reading a page.
AXE = find_spec("axe_core_python")
#: What axe finds, in words.
FOUND = """axe.run().then(found => found.violations.map(
    each => `${each.id} (${each.impact}): ${each.nodes.map(n => n.html).join(" ")}`))"""
PAGES = ("/", "/engines/chat-0")
SHOWN = "document.body.innerText"
#: Links of at most 10 letters that take more than one line.
SQUEEZED = """[...document.querySelectorAll("td a, th a")].filter(
    each => each.innerText.length <= 10 && each.getClientRects().length > 1)
    .map(each => each.innerText)"""
#: Where a part begins, in pixels from the page's top.
TOP = "document.getElementById('{}').getBoundingClientRect().top + scrollY"
FOCUSED = "document.activeElement.getAttribute('href')"


@pytest.fixture
def records(valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Records]:
    records = Records.open(tmp_path, valkey.url, ("chat", "absent"))
    records.write(engines=2)
    yield records
    records.store.client.close()


def test_a_page_follows_the_fleet_and_keeps_what_the_reader_does(
    records: Records, tmp_path: Path
):
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
    assert tab.complaints == []


def test_a_page_is_read_and_ordered_from_without_scripts(
    records: Records, tmp_path: Path
):
    async def visit(url: str) -> None:
        async with open_browser(tmp_path / "profile") as tab:
            await tab.call("Emulation.setScriptExecutionDisabled", value=True)
            await tab.log_in(url, PASSWORD)
            text = await tab.run("document.body.innerText")
            assert "no ready engine: 120 wait" in text
            assert await tab.run("document.querySelectorAll('svg').length") > 2
            await tab.open(f"{url}/engines/chat-0")
            await press(tab, "drain", "0" * 64)
            await tab.wait_for(
                "document.body.innerText.includes('not of this session')"
            )
            assert orders(records.store) == ()
            await tab.open(f"{url}/engines/chat-0")
            await press(tab, "drain")
            await tab.wait_for("document.body.innerText.includes('is drained by ada')")
            assert [each.target for each in orders(records.store)] == ["chat-0"]

    with serve_page(records.settings, PASSWORD, PageOptions("ada", True)) as page:
        asyncio.run(visit(f"http://127.0.0.1:{page.port}"))


def test_what_was_read_stays_while_redis_is_away(tmp_path: Path):
    (tmp_path / "server").mkdir()
    valkey = ValkeyProcess(tmp_path / "server").start()
    records = Records.open(tmp_path, valkey.url, ("chat", "absent"))
    records.write(engines=2)

    async def visit(url: str) -> Tab:
        async with open_browser(tmp_path / "profile") as tab:
            await tab.log_in(url, PASSWORD)
            valkey.stop()
            await tab.wait_for("!document.getElementById('stale').hidden")
            told = await tab.run("document.getElementById('stale').innerText")
            assert "Redis at redis://" in told
            assert told.endswith("What is shown is old.")
            assert "no ready engine: 120 wait" in await tab.run(SHOWN)
            await tab.open(f"{url}/")
            assert "does not answer" in await tab.run(SHOWN)
            valkey.start()
            await tab.wait_for("document.getElementById('models')")
            assert await tab.run("document.getElementById('stale').hidden")
            return tab

    with serve_page(records.settings, PASSWORD, PageOptions("ada")) as page:
        tab = asyncio.run(visit(f"http://127.0.0.1:{page.port}"))
    assert tab.complaints == []
    records.store.client.close()
    valkey.stop()


@pytest.mark.parametrize("width", [390, 920, 1024, 1280])
def test_many_models_with_long_names_stay_readable(tmp_path: Path, width: int):
    """No column is squeezed to letters, nothing stands beyond the window."""
    (tmp_path / "server").mkdir()
    valkey = ValkeyProcess(tmp_path / "server").start()
    long = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"
    records = Records.open(tmp_path, valkey.url, ("vectors", long, "absent"))
    records.write(engines=4)
    now = records.store.now()
    for number in range(20):
        text = f"m{number} is down: {'its engine is FATAL ' * 12}"
        alert = AlertRecord(f"m{number}", text, now - number, "down", "raised")
        add_alert(records.store, alert)

    async def visit(url: str) -> None:
        async with open_browser(tmp_path / "profile") as tab:
            await tab.look(width, 900)
            await tab.log_in(url, PASSWORD)
            assert await tab.run("document.documentElement.scrollWidth") == width
            assert await tab.run(SQUEEZED) == []
            assert await tab.run(TOP.format("models")) < 3 * 900
            assert "15 more" in await tab.run(SHOWN)
            assert "root@vm.Control" not in await tab.run(SHOWN)

    with serve_page(records.settings, PASSWORD, PageOptions("ada")) as page:
        asyncio.run(visit(f"http://127.0.0.1:{page.port}"))
    records.store.client.close()
    valkey.stop()


async def press(tab: Tab, action: str, token: str = "") -> None:
    """Press a button; with a token of somebody else's where one is given."""
    form = f"document.querySelector('form[action$=\"/{action}\"]')"
    if token:
        await tab.run(f"{form}.elements.token.value = {token!r}")
    await tab.run(f"{form}.requestSubmit()")


@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed")
def test_axe_finds_nothing_that_keeps_people_from_reading(
    records: Records, tmp_path: Path
):
    assert AXE
    assert AXE.origin
    axe = (Path(AXE.origin).parent / "axe.min.js").read_text()

    async def visit(url: str) -> Any:
        found = {}
        async with open_browser(tmp_path / "profile") as tab:
            await tab.log_in(url, PASSWORD)
            for width, scheme in ((390, "dark"), (1280, "light")):
                await tab.look(width, 900, scheme)
                for path in PAGES:
                    await tab.open(f"{url}{path}")
                    ground = "getComputedStyle(document.body).backgroundColor"
                    found[width, path] = await tab.run(f"{axe};{FOUND}")
                    found[scheme] = await tab.run(ground)
        return found

    with serve_page(records.settings, PASSWORD, PageOptions("ada", True)) as page:
        found = asyncio.run(visit(f"http://127.0.0.1:{page.port}"))
    assert found.pop("dark") != found.pop("light")
    assert {where: told for where, told in found.items() if told} == {}
