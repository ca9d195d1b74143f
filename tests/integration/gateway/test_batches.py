"""OpenAI's files and batches through the gateway."""

import fcntl
import json
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from modelserver.values import EngineState
from tests.engine.openai_api import answer_text
from tests.integration.gateway.conftest import Served, open_gateway
from tests.support.hosted_runs import HolderProcess, holder, state
from tests.support.processes import eventually
from tests.support.workers import FleetSite

URL = "/v1/completions"
#: How long a small batch may take, in seconds.
WITHIN = 90.0


@pytest.fixture(scope="module")
def holding(site: FleetSite) -> Iterator[HolderProcess]:
    """A process that carries out what is submitted."""
    with holder(site, "batches") as process:
        process.wait_until_ready()
        yield process


def line(name: str, **body: Any) -> dict[str, Any]:
    asked = {"model": "writer", "prompt": f"row {name}", "max_tokens": 2, **body}
    return {"custom_id": name, "method": "POST", "url": URL, "body": asked}


def upload(
    gateway: Served, content: bytes, purpose: str = "batch", field: str = "file"
) -> tuple[int, Any]:
    mark = uuid.uuid4().hex
    parts = (
        f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
        f"{purpose}\r\n"
        f'--{mark}\r\nContent-Disposition: form-data; name="{field}"; '
        f'filename="in.jsonl"\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    data = parts.encode() + content + f"\r\n--{mark}--\r\n".encode()
    with gateway.connected() as connection:
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        connection.request("POST", "/v1/files", data, kind)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def begin(
    gateway: Served, lines: list[dict[str, Any]], **change: Any
) -> dict[str, Any]:
    """Upload these lines and make a batch of them."""
    content = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
    _, file = upload(gateway, content)
    asked = {
        "input_file_id": file["id"],
        "endpoint": URL,
        "completion_window": "24h",
        **change,
    }
    status, batch, _ = gateway.ask("/v1/batches", asked)
    assert status == 200, batch
    return dict(batch)


def show(gateway: Served, batch: dict[str, Any]) -> dict[str, Any]:
    return dict(gateway.ask(f"/v1/batches/{batch['id']}")[1])


def ended(gateway: Served, batch: dict[str, Any], status: str) -> dict[str, Any]:
    eventually(lambda: show(gateway, batch)["status"] == status, WITHIN)
    return show(gateway, batch)


def read(gateway: Served, file: str) -> list[dict[str, Any]]:
    _, content, _ = gateway.ask(f"/v1/files/{file}/content")
    return [json.loads(each) for each in content.splitlines()]


def test_a_batch_is_answered(gateway: Served, holding: HolderProcess):
    lines = [line(f"a{number}") for number in range(20)]
    lines.append(line("bad", temperature=-1))
    batch = begin(gateway, lines, metadata={"job": "night"})
    assert batch["object"] == "batch"
    assert batch["status"] in ("validating", "in_progress")
    assert batch["metadata"] == {"job": "night"}
    done = ended(gateway, batch, "completed")
    assert done["request_counts"] == {"total": 21, "completed": 20, "failed": 1}
    answers = {
        each["custom_id"]: each["response"]["body"]["choices"][0]["text"]
        for each in read(gateway, done["output_file_id"])
    }
    assert answers == {
        f"a{number}": answer_text(f"row a{number}") for number in range(20)
    }
    [failed] = read(gateway, done["error_file_id"])
    assert failed["custom_id"] == "bad"
    assert failed["response"]["status_code"] == 400
    listed = gateway.ask("/v1/batches")[1]["data"]
    assert done in listed


def test_a_batch_with_bad_lines_fails_in_words(gateway: Served, holding: HolderProcess):
    other = line("c") | {"url": "/v1/embeddings"}
    batch = begin(gateway, [line("a"), line("a"), {"custom_id": "b"}, other])
    done = ended(gateway, batch, "failed")
    assert {each["line"] for each in done["errors"]["data"]} == {2, 3, 4}
    assert done["errors"]["data"][-1]["code"] == "invalid_url"
    assert all(each["message"] for each in done["errors"]["data"])


def test_a_batch_goes_on_where_gateway_and_holder_are_killed(
    site: FleetSite, fleet: FleetSite
):
    fleet.engine("writer-1", "--latency", "0.5", limit=8)
    fleet.engines["writer-0"].fault(status=503)
    with open_gateway(site) as gateway, holder(fleet, "dies") as dies:
        batch = begin(gateway, [line(f"k{number}") for number in range(60)])
        eventually(
            lambda: show(gateway, batch)["request_counts"]["completed"] > 5, WITHIN
        )
        dies.process.send_signal(signal.SIGKILL)
        gateway.process.send_signal(signal.SIGKILL)
    fleet.engines["writer-0"].fault()
    with open_gateway(site) as gateway, holder(fleet, "goes-on"):
        done = ended(gateway, batch, "completed")
        rows = read(gateway, done["output_file_id"])
    assert sorted(each["custom_id"] for each in rows) == sorted(
        f"k{number}" for number in range(60)
    )


def test_a_batch_is_cancelled(
    gateway: Served, holding: HolderProcess, fleet: FleetSite
):
    fleet.engines["writer-0"].fault(status=503)
    batch = begin(gateway, [line(f"c{number}") for number in range(10)])
    eventually(lambda: show(gateway, batch)["status"] == "in_progress", WITHIN)
    status, told, _ = gateway.ask(f"/v1/batches/{batch['id']}/cancel", {})
    assert status == 200
    assert told["cancelling_at"]
    ended(gateway, batch, "cancelled")


def test_a_batch_is_cancelled_while_its_input_is_looked_at(
    gateway: Served, holding: HolderProcess, fleet: FleetSite
):
    fleet.engines["writer-0"].fault(status=503)
    batch = begin(gateway, [line(f"v{number}") for number in range(5_000)])
    told = gateway.ask(f"/v1/batches/{batch['id']}/cancel", {})[1]
    assert told["status"] == "cancelling"
    done = ended(gateway, batch, "cancelled")
    assert not done["request_counts"]["completed"]


def test_a_batch_goes_on_where_its_file_is_removed(
    gateway: Served, holding: HolderProcess, fleet: FleetSite
):
    first = begin(gateway, [line("r1"), line("r2")])
    file = first["input_file_id"]
    asked = {"input_file_id": file, "endpoint": URL, "completion_window": "24h"}
    second = gateway.ask("/v1/batches", asked)[1]
    gateway.ask(f"/v1/batches/{second['id']}/cancel", {})
    assert gateway.ask(f"/v1/files/{file}", method="DELETE")[0] == 200
    done = ended(gateway, first, "completed")
    assert done["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    ended(gateway, second, "cancelled")
    # What the batches kept of it goes with them.
    folder = fleet.settings.files_dir
    for batch in (first, second):
        kept = folder / f"{batch['id']}.in.jsonl"
        eventually(lambda path=kept: not path.exists(), WITHIN)


def test_a_batch_that_is_done_is_not_cancelled(gateway: Served, holding: HolderProcess):
    batch = begin(gateway, [line("done")])
    ended(gateway, batch, "completed")
    assert gateway.ask(f"/v1/batches/{batch['id']}/cancel", {})[0] == 409


def test_a_file_that_is_no_input_is_told_by_its_name(
    gateway: Served, holding: HolderProcess
):
    _, file = upload(gateway, "no text".encode("utf-16"))
    asked = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h"}
    batch = gateway.ask("/v1/batches", asked)[1]
    [error] = ended(gateway, batch, "failed")["errors"]["data"]
    assert error["message"] == f"{file['id']}.jsonl is UTF-16; save it as UTF-8"


def test_a_batch_expires(gateway: Served, holding: HolderProcess, fleet: FleetSite):
    fleet.engines["writer-0"].fault(status=503)
    lines = [line(f"e{number}") for number in range(3)]
    batch = begin(gateway, lines, completion_window="2s")
    done = ended(gateway, batch, "expired")
    assert done["expired_at"]
    told = {
        each["custom_id"]: each["error"]["code"]
        for each in read(gateway, done["error_file_id"])
    }
    assert told == dict.fromkeys(("e0", "e1", "e2"), "batch_expired")


def test_each_row_of_a_cancelled_batch_is_told_once(
    gateway: Served, holding: HolderProcess, fleet: FleetSite
):
    fleet.engine("writer-1", "--latency", "0.3", limit=2)
    fleet.report("writer-0", EngineState.STARTING)
    lines = [line(f"p{number}") for number in range(200)]
    batch = begin(gateway, [line("bad", temperature=-1), *lines])
    eventually(lambda: show(gateway, batch)["request_counts"]["completed"] > 2, WITHIN)
    gateway.ask(f"/v1/batches/{batch['id']}/cancel", {})
    done = ended(gateway, batch, "cancelled")
    answers = read(gateway, done["output_file_id"])
    errors = read(gateway, done["error_file_id"])
    [refused] = [each for each in errors if each["response"]]
    assert refused["custom_id"] == "bad"
    codes = {each["error"]["code"] for each in errors if each["error"]}
    assert codes == {"batch_cancelled"}
    told = [each["custom_id"] for each in (*answers, *errors)]
    assert sorted(told) == sorted(["bad", *(each["custom_id"] for each in lines)])


def test_the_errors_of_a_batch_stay_removed(
    gateway: Served, holding: HolderProcess, fleet: FleetSite
):
    fleet.engines["writer-0"].fault(status=503)
    batch = begin(gateway, [line("r0"), line("r1")], completion_window="1s")
    path = f"/v1/files/{ended(gateway, batch, 'expired')['error_file_id']}"
    assert gateway.ask(path, method="DELETE")[1]["deleted"] is True
    assert show(gateway, batch)["error_file_id"] is None
    assert gateway.ask(path)[0] == 404


def test_a_batch_is_shown_while_what_it_did_not_come_to_is_written(
    gateway: Served, holding: HolderProcess, fleet: FleetSite
):
    fleet.engines["writer-0"].fault(status=503)
    batch = begin(gateway, [line("w0")])
    eventually(lambda: show(gateway, batch)["status"] == "in_progress", WITHIN)
    record = record_of(fleet, batch)
    # As another gateway has it that writes.
    with record.with_suffix(".lock").open("a") as lock:
        eventually(lambda: has_lock(lock), WITHIN)
        gateway.ask(f"/v1/batches/{batch['id']}/cancel", {})
        run = json.loads(record.read_text())["run"]
        eventually(lambda: state(fleet.store, run) == "cancelled", WITHIN)
        told = show(gateway, batch)
        assert (told["status"], told["error_file_id"]) == ("cancelling", None)
    done = ended(gateway, batch, "cancelled")
    [error] = read(gateway, done["error_file_id"])
    assert error["custom_id"] == "w0"


def test_how_a_batch_ended_is_known_once_its_run_is_forgotten(
    gateway: Served, holding: HolderProcess, fleet: FleetSite
):
    batch = begin(gateway, [line("f0")])
    done, record = ended(gateway, batch, "completed"), record_of(fleet, batch)
    eventually(lambda: json.loads(record.read_text())["ended"], WITHIN)
    run = json.loads(record.read_text())["run"]
    fleet.store.client.delete(fleet.store.keys.hosted_run(run))
    told = show(gateway, batch)
    assert (told["status"], told["output_file_id"]) == (
        "completed",
        done["output_file_id"],
    )


def record_of(fleet: FleetSite, batch: dict[str, Any]) -> Path:
    """What its gateway keeps of a batch."""
    [found] = fleet.folder.rglob(f"{batch['id']}.json")
    return found


def has_lock(file: IO[str]) -> bool:
    """Whether the lock is ours by now."""
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def test_a_file_is_kept_shown_and_removed(gateway: Served):
    status, file = upload(gateway, b"{}\n")
    assert status == 200
    assert (file["bytes"], file["filename"], file["purpose"]) == (
        3,
        "in.jsonl",
        "batch",
    )
    path = f"/v1/files/{file['id']}"
    assert gateway.ask(path)[1] == file
    assert file in gateway.ask("/v1/files?limit=100")[1]["data"]
    assert gateway.ask(f"{path}/content")[1] == b"{}\n"
    assert gateway.ask(path, method="DELETE")[1]["deleted"] is True
    assert gateway.ask(path)[0] == 404


def test_a_range_of_a_file_is_answered_and_one_beyond_it_refused(gateway: Served):
    path = f"/v1/files/{upload(gateway, b'{}')[1]['id']}/content"
    for asked in ("bytes=1-", "bytes=-1", "bytes=1-5"):
        assert gateway.ask(path, headers={"Range": asked})[:2] == (206, b"}"), asked
    for asked in ("bytes=2-", "bytes=9-12", "bytes=1-0", "lines=1-2"):
        status, body, headers = gateway.ask(path, headers={"Range": asked})
        assert (status, body["error"]["param"]) == (416, "Range"), asked
        assert headers["content-range"] == "bytes */2"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": "file-0"}, "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, "input_file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"endpoint": "/v1/nothing"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {"a": 5}}, "metadata"),
        ({"metadata": "a"}, "metadata"),
    ],
)
def test_a_bad_batch_is_refused(gateway: Served, change: dict[str, Any], param: str):
    _, file = upload(gateway, b"{}\n")
    asked = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h"}
    status, body, _ = gateway.ask("/v1/batches", asked | change)
    assert (status, body["error"]["param"]) == (400, param)


def test_a_list_is_gone_through_in_pages(gateway: Served):
    for _ in range(3):
        upload(gateway, b"{}")
    ids = [each["id"] for each in gateway.ask("/v1/files")[1]["data"]]
    for order, expected in (("desc", ids), ("asc", ids[::-1])):
        found, after, more = [], "", True
        while more:
            path = f"/v1/files?limit=2&order={order}" + (after and f"&after={after}")
            page = gateway.ask(path)[1]
            found += [each["id"] for each in page["data"]]
            after, more = page["last_id"], page["has_more"]
        assert found == expected


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *((f"limit={value}", "limit") for value in ("0", "-1", "a", "101", "9" * 900)),
        ("after=batch_gone", "after"),
        ("order=up", "order"),
    ],
)
def test_a_page_that_is_none_is_refused(gateway: Served, query: str, param: str):
    status, body, _ = gateway.ask(f"/v1/batches?{query}")
    assert (status, body["error"]["param"]) == (400, param)


def test_files_that_are_none_are_refused(gateway: Served):
    assert upload(gateway, b"", "batch")[0] == 400
    assert upload(gateway, b"{}", "fine-tune")[1]["error"]["param"] == "purpose"
    assert upload(gateway, b"{}", field="other")[1]["error"]["param"] == "file"
    assert gateway.ask("/v1/files", {"purpose": "batch"})[0] == 400
    for path in ("file-0", "..%2F..%2Fetc%2Fpasswd", "file-..", "batch_1"):
        assert gateway.ask(f"/v1/files/{path}")[0] == 404
        assert gateway.ask(f"/v1/files/{path}/content")[0] == 404
