"""Flower's pages in a real browser, or over HTTP where there is none."""

import base64
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from tests.acceptance.product import PATIENCE, Product
from tests.support.browser import BROWSER, QUIET
from tests.support.processes import ROOT, eventually
from tests.support.workers import answers

pytestmark = pytest.mark.sglang

#: Scripts run for so long before a page is looked at.
SETTLED = "--virtual-time-budget=8000"
#: Words that stand in a prompt and nowhere else.
SECRET = "a heron in the reeds"
READ_SECONDS = 60.0


def read(url: str) -> str:
    """A page as the server sends it; the URL may hold a user and a password."""
    user, _, place = url.removeprefix("http://").rpartition("@")
    told = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    asked = urllib.request.Request(f"http://{place}", headers=told)
    with urllib.request.urlopen(asked, timeout=PATIENCE) as got:
        return str(got.read().decode())


def words(html: str) -> str:
    """What a reader sees of a page, in one line."""
    seen = re.sub(r"<(script|style|head)\b.*?</\1>|<[^>]+>", " ", html, flags=re.S)
    return " ".join(unescape(seen).split())


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., str]:
    """The browser: opens a page, runs its scripts, and returns what became of it."""
    if BROWSER is None:
        pytest.skip("no chromium or google-chrome is installed")
    argv = [BROWSER, *QUIET, SETTLED, f"--user-data-dir={tmp_path / 'profile'}"]

    def browse(url: str, *options: str) -> str:
        done = subprocess.run(
            [*argv, *(options or ("--dump-dom",)), url],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return done.stdout

    return browse


@pytest.fixture
def tasks(fleet: Product) -> list[str]:
    """Requests of every kind that were answered; their numbers."""
    results = [
        fleet.complete.delay(SECRET, max_tokens=8),
        fleet.chat.delay([{"role": "user", "content": SECRET}], max_tokens=8),
        fleet.embed.delay(SECRET),
    ]
    answers(results, PATIENCE)
    return [result.id for result in results]


def test_flower_is_shown_to_nobody_without_the_password(fleet: Product) -> None:
    place = fleet.flower_url.rpartition("@")[2]
    for url in (f"http://{place}/tasks", f"http://modelserver:wrong@{place}/"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            read(url)


def test_flower_serves_workers_queues_and_requests(
    fleet: Product, tasks: list[str]
) -> None:
    def pages() -> bool:
        broker = words(read(f"{fleet.flower_url}/broker"))
        assert re.search(r"tiny-chat \d.* tiny-embed \d", broker), broker
        workers = read(f"{fleet.flower_url}/workers?json=1")
        assert '"status": true' in workers, workers
        return True

    eventually(pages, READ_SECONDS)
    for task, name in zip(tasks, ("complete", "chat", "embed"), strict=True):
        page = eventually(
            lambda task=task: task_page(fleet, task, "SUCCESS"),  # type: ignore[misc]
            READ_SECONDS,
        )
        assert f"modelserver.{name}" in page
        assert "characters>" in page
        assert SECRET not in page


def task_page(fleet: Product, task: str, state: str) -> str:
    """The page of one request, once it shows its state."""
    page = words(read(f"{fleet.flower_url}/task/{task}"))
    assert state in page, page
    return page


def test_the_browser_shows_the_fleet(
    fleet: Product, tasks: list[str], browse: Callable[..., str]
) -> None:
    def workers() -> bool:
        page = words(browse(fleet.flower_url))
        assert re.search(r"Online workers 1 .*celery@\S+ Online", page), page
        return True

    eventually(workers, READ_SECONDS)
    broker = words(browse(f"{fleet.flower_url}/broker"))
    assert re.search(r"control \d+ .*tiny-chat \d+ .*tiny-embed \d+ ", broker), broker
    shown = browse(f"{fleet.flower_url}/tasks")
    for name in ("complete", "chat", "embed"):
        assert f"modelserver.{name}" in words(shown)
    assert all(task in shown for task in tasks)
    assert SECRET not in shown


def test_the_browser_takes_pictures(
    fleet: Product, tasks: list[str], browse: Callable[..., str]
) -> None:
    results = ROOT / "results"
    results.mkdir(exist_ok=True)
    for name in ("workers", "tasks", "broker", f"task/{tasks[0]}"):
        picture = results / f"flower-{name.partition('/')[0]}.png"
        picture.unlink(missing_ok=True)
        browse(
            f"{fleet.flower_url}/{name}",
            f"--screenshot={picture}",
            "--window-size=1280,800",
        )
        assert picture.stat().st_size > 10_000
