"""The fleet page over HTTP: who may see it, what it shows, what it refuses."""

import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelserver.page.door import MOST_TRIES
from modelserver.page.server import PageOptions
from modelserver.store.fleet.control import read_wishes
from modelserver.store.fleet.orders import orders
from modelserver.store.runs.programs import ProgramRun, tell_program_run
from tests.support.fleet_records import WICKED, Records
from tests.support.page_visits import STRANGER, PageVisit, open_page, serve_page
from tests.support.processes import ValkeyProcess, eventually

PASSWORD = "a heron in the reeds"
#: The last one has no engine; a slash may stand in a model's name.
MODELS = ("chat", "org/vectors", "absent")
PAGES = (
    "/",
    "/models/chat",
    "/models/org%2Fvectors",
    "/models/absent",
    "/engines/chat-0",
    "/hosts/host-0",
    "/runs/run000000000000",
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    """A fleet of records in a server of their own, for the whole module."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "valkey").mkdir()
    server = ValkeyProcess(folder / "valkey").start()
    records = Records.open(folder, server.url, MODELS)
    records.write(engines=4)
    yield records
    records.store.client.close()
    server.stop()


@pytest.fixture(scope="module")
def page(records: Records) -> Iterator[PageVisit]:
    """A page with buttons."""
    log = records.settings.fleet_file.parent / "page.log"
    with open_page(records.environment, log, "--actions") as page:
        page.log_in(own_password(records))
        yield page
    assert own_password(records) not in log.read_text()


def own_password(records: Records) -> str:
    return (records.settings.home / "password").read_text().strip()


def test_what_is_shown_of_the_fleet(page: PageVisit):
    text = page.ask("/").text
    assert "<b>3</b> of <b>4</b> engines ready" in text
    for told in (
        *("no ready engine: 120 wait", "loading weights 43 %", "asked for by ada"),
        *("1.36 times", "XID 79", "66 GiB", "12 GiB", "24,800", "81,234"),
        # The oldest of absent's 120 was sent two minutes ago.
        *("takes 1.62x", "23 of 64", "2 min"),
    ):
        assert told in text


def test_runs_of_programs_are_shown(page: PageVisit, records: Records):
    run = ProgramRun("map-1", "prompts", None, 20, 3, user=WICKED, program="night.py")
    tell_program_run(records.store, replace(run, told_at=records.store.now()))
    eventually(lambda: "map-1" in page.ask("/").text)
    text = page.ask("/").text
    assert "prompts of night.py" in text
    assert WICKED not in text


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_shown_to_whoever_has_a_session(page: PageVisit, path: str):
    whole, part = page.ask(path), page.ask(f"{path}?part")
    assert (whole.status, part.status) == (200, 200)
    assert whole.text.startswith("<!doctype html>")
    assert "<html" not in part.text
    assert "data-part" in part.text


@pytest.mark.parametrize(
    "path", [*PAGES, "/?part", "/nothing", "/engines/chat-0/drain"]
)
@pytest.mark.parametrize("cookie", ["", "modelserver_page=1.2.3", "modelserver_page="])
def test_nothing_is_shown_to_strangers(page: PageVisit, path: str, cookie: str):
    reply = page.ask(path, cookie=cookie)
    assert reply.status == 401
    assert "chat" not in reply.text


def test_wrong_passwords_are_refused_and_soon_not_looked_at(
    page: PageVisit, records: Records
):
    right = {"password": own_password(records)}
    guess = {"password": "guess"}
    for _ in range(int(MOST_TRIES)):
        assert page.ask("/login", guess, source=STRANGER).status == 403

    def is_shut_out() -> bool:
        """Whether both are refused; while they are sent a try may be gained."""
        replies = [page.ask("/login", f, source=STRANGER) for f in (guess, right)]
        waits = [int(each.headers.get("retry-after", 0)) for each in replies]
        return [each.status for each in replies] == [429, 429] and min(waits) >= 1

    eventually(is_shut_out)
    assert page.ask("/login", right).status == 303


def test_the_cookie_is_kept_from_scripts_and_other_sites(
    page: PageVisit, records: Records
):
    reply = page.ask("/login", {"password": own_password(records)})
    told = reply.headers["set-cookie"]
    assert "HttpOnly" in told
    assert "SameSite=Strict" in told


def test_buttons_take_a_token_of_their_session(page: PageVisit, records: Records):
    path = "/engines/chat-0/drain"
    assert page.ask(path, {}).status == 403
    assert page.ask(path, {"token": "0" * 64}).status == 403
    assert page.ask("/logout", {}).status == 403
    assert page.ask(path, {"token": page.ask("/").token}, cookie="").status == 401
    assert orders(records.store) == ()
    reply = page.ask(path, {"token": page.ask("/").token})
    assert (reply.status, reply.headers["location"]) == (303, "/engines/chat-0")
    assert [each.target for each in orders(records.store)] == ["chat-0"]
    assert "chat-0 is drained by" in page.ask("/").text
    page.ask("/engines/chat-0/undrain", {"token": page.ask("/").token})
    assert orders(records.store) == ()


def test_buttons_relaunch_pause_and_cancel(page: PageVisit, records: Records):
    token = page.ask("/").token
    assert page.ask("/engines/chat-0/relaunch", {"token": token}).status == 303
    assert read_wishes(records.store)["chat-0"].relaunch == 1
    assert page.ask("/models/chat/pause", {"token": token}).status == 303
    assert page.ask("/models/chat/resume", {"token": token}).status == 303
    run = "/runs/run000000000000"
    assert page.ask(f"{run}/cancel", {"token": token}).status == 303
    assert "cancelling" in page.ask(run).text
    assert page.ask("/engines/none/drain", {"token": token}).status == 409
    assert page.ask("/hosts/host-0/drain", {"token": token}).status == 404


def test_what_comes_from_the_store_is_no_html(page: PageVisit):
    for path in (*PAGES, "/engines/%3Cscript%3Ealert(1)%3C%2Fscript%3E"):
        reply = page.ask(path)
        assert WICKED not in reply.text
        assert not re.search(r"<script(?! src)| on\w+=| style=|javascript:", reply.text)
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert "&lt;script&gt;" in page.ask("/").text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "//etc/passwd",
        "/models/..%2F..%2F..%2Fetc%2Fpasswd",
        "/static/page.css%00",
    ],
)
def test_no_path_leads_to_other_files(page: PageVisit, path: str):
    reply = page.ask(path)
    assert reply.status in (404, 405)
    assert "root:" not in reply.text
    assert "aiohttp" not in reply.text


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data\r\n"
        b"Content-Length: 3\r\nConnection: close\r\n\r\nabc",
        b"POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
        b"application/x-www-form-urlencoded; charset=nope\r\nContent-Length: 12\r\n\r\n"
        b"password=%ff",
    ],
)
def test_malformed_http_is_refused_and_nothing_falls(page: PageVisit, content: bytes):
    head = page.send_raw(content).partition(b"\r\n")[0]
    assert not head or re.match(rb"HTTP/1\.[01] 4\d\d", head), head
    assert page.ask("/health", cookie="").status == 200


def test_large_forms_are_refused(page: PageVisit):
    assert page.ask("/login", {"password": "a" * 1_000_000}).status == 413


def test_a_password_that_is_made_is_told_by_its_file_alone(
    page: PageVisit, records: Records
):
    path = records.settings.home / "password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Its output is no terminal but may be a log.
    assert path.read_text().strip() not in page.said
    assert str(path) in page.said


def test_without_buttons_nothing_is_ordered(records: Records):
    with serve_page(records.settings, PASSWORD, PageOptions("ada")) as page:
        shown = page.ask("/engines/chat-0")
        assert "relaunch</button>" not in shown.text.lower()
        drain = page.ask("/engines/chat-0/drain", {"token": shown.token})
        assert drain.status == 403
        assert "--actions" in drain.text
        assert orders(records.store) == ()


def test_the_page_outlives_the_store(valkey: ValkeyProcess, tmp_path: Path):
    records = Records.open(tmp_path, valkey.url, MODELS)
    records.store.client.close()
    with serve_page(records.settings, PASSWORD, PageOptions("ada")) as page:
        assert page.ask("/").status == 200
        valkey.stop()
        gone = eventually(lambda: (seen := page.ask("/")).status == 503 and seen)
        assert "Redis" in gone.text
        valkey.start()
        assert page.ask("/").status == 200
