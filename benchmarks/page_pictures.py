"""Pictures of the fleet page and of top: ``python -m benchmarks.page_pictures``.

Draws a fleet of records in a real Chromium: the pictures of the docs, the others into
results/.
"""

import asyncio
import io
import re
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.report import RESULTS, ROOT
from modelserver.cli.top_frame import draw_frame
from modelserver.page.reading import FleetReader
from modelserver.page.server import PageOptions
from modelserver.store.fleet.control import report_steered
from tests.support.browser import open_browser
from tests.support.fleet_records import Records
from tests.support.page_visits import serve_page
from tests.support.processes import ValkeyProcess

DOCS = ROOT / "docs"
PASSWORD = "only for pictures"
#: The last one has no engine.
MODELS = ("qwen3-8b", "llama-70b", "bge-large", "gpt-big")
#: Each picture: its file, the path of the page, the window, the scheme.
PICTURES = (
    (DOCS / "page-fleet.png", "/", (1200, 900), "light"),
    (DOCS / "page-engine.png", "/engines/llama-70b-0", (1000, 780), "dark"),
    (DOCS / "page-dark.png", "/", (1200, 1000), "dark"),
    (DOCS / "page-phone.png", "/", (390, 1500), "dark"),
    (RESULTS / "page-no-engine.png", "/models/gpt-big", (1000, 620), "light"),
    (RESULTS / "page-run.png", "/runs/run000000000000", (1000, 860), "light"),
    (RESULTS / "page-run-phone.png", "/runs/run000000000000", (390, 1400), "dark"),
    (RESULTS / "page-host.png", "/hosts/host-0", (1200, 900), "light"),
)
#: The page has fetched its parts again after so many seconds.
REFETCHED_SECONDS = 2.5


async def _take(records: Records, url: str, profile: Path) -> None:
    async with open_browser(profile) as tab:
        await tab.log_in(url, PASSWORD)
        for path, page, size, scheme in PICTURES:
            report_steered(records.store, "pictures")
            await tab.look(*size, scheme)
            await tab.open(url + page)
            await asyncio.sleep(REFETCHED_SECONDS)
            path.write_bytes(await tab.picture())
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def _draw_top(records: Records) -> None:
    """The terminal's frame, without the fonts that rich has fetched from elsewhere."""
    width, height = 80, 24
    screen = Console(width=width, file=io.StringIO(), record=True)
    view = FleetReader(records.settings).read(records.store)
    screen.print(draw_frame(view, width, height))
    picture = screen.export_svg(title="modelserver top")
    own = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.S)
    (DOCS / "top.svg").write_text(own)


def main() -> None:
    """Write all of them."""
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        server = ValkeyProcess(folder / "valkey").start()
        try:
            records = Records.open(folder, server.url, MODELS)
            records.write(engines=9, runs=2, alert="stands still again and again")
            options = PageOptions("ada", True, "http://127.0.0.1:5555")
            with serve_page(records.settings, PASSWORD, options) as page:
                url = f"http://127.0.0.1:{page.port}"
                asyncio.run(_take(records, url, folder / "profile"))
            _draw_top(records)
            records.store.client.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
