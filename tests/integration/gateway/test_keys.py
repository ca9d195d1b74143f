"""API keys, their limits and their books, through the gateway."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from modelserver.store.fleet.api_keys import (
    ApiKey,
    add_api_key,
    read_api_keys,
    read_books,
    revoke_api_key,
)
from tests.integration.gateway.conftest import Served, open_gateway
from tests.support.hosted_runs import holder
from tests.support.processes import ROOT, eventually
from tests.support.workers import PATIENCE, FleetSite

ASKED = {"model": "writer", "prompt": "one two", "max_tokens": 3}


@pytest.fixture
def guarded(gateway: Served, fleet: FleetSite) -> Iterator[Served]:
    """The gateway while there are keys; open again afterwards."""
    command(fleet, "keys", "add", "other")
    eventually(lambda: gateway.ask("/v1/models")[0] == 401, PATIENCE)
    yield gateway
    for key in read_api_keys(fleet.store):
        revoke_api_key(fleet.store, key.name)
    fleet.store.client.delete(*fleet.store.client.keys("*api:*") or ["none"])
    eventually(lambda: gateway.ask("/v1/models")[0] == 200, PATIENCE)


def command(fleet: FleetSite, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "modelserver.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **fleet.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout.strip()


def ask(gateway: Served, secret: str, **change: Any) -> tuple[int, Any, dict[str, str]]:
    bearer = {"Authorization": f"Bearer {secret}"}
    return gateway.ask("/v1/completions", ASKED | change, headers=bearer)


def upload(gateway: Served, content: bytes, headers: dict[str, str]) -> str:
    """A file for a batch; its id."""
    data = (
        b'--m\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--m\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        + content
        + b"\r\n--m--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=m"}
    with gateway.connected() as connection:
        connection.request("POST", "/v1/files", data, headers | kind)
        return str(json.loads(connection.getresponse().read())["id"])


def test_with_keys_nobody_comes_in_without_one(guarded: Served, fleet: FleetSite):
    for secret in ("", "sk-ms-wrong"):
        status, body, _ = ask(guarded, secret)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert guarded.ask("/metrics")[0] == 401
    assert guarded.ask("/health")[0] == 200


def test_a_key_is_not_kept_and_ends_at_once(guarded: Served, fleet: FleetSite):
    secret = command(fleet, "keys", "add", "ana")
    assert ask(guarded, secret)[0] == 200
    stored = str(fleet.store.client.hgetall(fleet.store.keys.api_keys))
    assert "ana" in stored
    assert secret not in stored
    assert secret not in command(fleet, "keys", "list")
    command(fleet, "keys", "revoke", "ana")
    assert ask(guarded, secret)[0] == 401


def test_a_key_is_held_to_its_models(guarded: Served, fleet: FleetSite):
    secret = command(fleet, "keys", "add", "ana", "--models", "writer")
    assert ask(guarded, secret)[0] == 200
    status, body, _ = ask(guarded, secret, model="other")
    assert (status, body["error"]["code"]) == (403, "model_not_allowed")
    status, body, _ = ask(guarded, secret, lora_path="sql")
    error = body["error"]
    assert (status, error["param"], error["code"]) == (
        403,
        "lora_path",
        "model_not_allowed",
    )
    own = {"Authorization": f"Bearer {secret}"}
    listed = guarded.ask("/v1/models", headers=own)[1]["data"]
    assert [each["id"] for each in listed] == ["writer"]
    assert guarded.ask("/v1/models/writer", headers=own)[0] == 200
    assert guarded.ask("/v1/models/other", headers=own)[0] == 404


def test_a_key_is_found_in_every_form_of_its_header(guarded: Served, fleet: FleetSite):
    secret = command(fleet, "keys", "add", "ana")
    for form, status in (
        ("bearer {}", 200),
        ("BEARER   {} ", 200),
        ("{}", 200),
        ("Bearer Bearer {}", 401),
        ("Basic {}", 401),
        ("Bearer ", 401),
        ("", 401),
        ("Bearer \xe9\xff", 401),
        ("Bearer \u00e9".encode().decode("latin-1"), 401),
    ):
        headers = {"Authorization": form.format(secret)}
        told, body, _ = guarded.ask("/v1/models", headers=headers)
        assert told == status, form
        assert status == 200 or body["error"]["code"] == "invalid_api_key"


def test_a_key_does_not_see_what_is_anothers(guarded: Served, fleet: FleetSite):
    own, other = (
        {"Authorization": f"Bearer {command(fleet, 'keys', 'add', name)}"}
        for name in ("ana", "bob")
    )
    file = upload(guarded, b"{}", own)
    path = f"/v1/files/{file}"
    assert guarded.ask(path, headers=own)[0] == 200
    for method, where in (("GET", path), ("GET", f"{path}/content"), ("DELETE", path)):
        assert guarded.ask(where, None, method, other)[0] == 404
    assert guarded.ask("/v1/files", headers=other)[1]["data"] == []
    asked = {
        "input_file_id": file,
        "endpoint": "/v1/completions",
        "completion_window": "1h",
    }
    status, body, _ = guarded.ask("/v1/batches", asked, headers=other)
    assert (status, body["error"]["param"]) == (400, "input_file_id")


def test_a_key_is_held_to_its_models_in_batches(guarded: Served, fleet: FleetSite):
    secret = command(fleet, "keys", "add", "ana", "--models", "writer")
    own = {"Authorization": f"Bearer {secret}"}
    url, odd = "/v1/completions", ({}, {"model": "other"}, {"lora_path": "sql"})
    lines = b"".join(
        orjson.dumps({"custom_id": f"{n}", "url": url, "body": ASKED | change}) + b"\n"
        for n, change in enumerate(odd)
    )
    asked = {"endpoint": url, "completion_window": "24h"}
    asked["input_file_id"] = upload(guarded, lines, own)
    batch = guarded.ask("/v1/batches", asked, headers=own)[1]["id"]

    def show() -> Any:
        return guarded.ask(f"/v1/batches/{batch}", headers=own)[1]

    eventually(lambda: show()["status"] == "failed", PATIENCE)
    told = [(each["line"], each["code"]) for each in show()["errors"]["data"]]
    assert told == [(2, "model_not_allowed"), (3, "model_not_allowed")]


def test_a_key_is_held_to_its_requests_a_minute(guarded: Served, fleet: FleetSite):
    secret = command(fleet, "keys", "add", "ana", "--rpm", "2")
    answers = [ask(guarded, secret) for _ in range(5)]
    # A minute may end in between.
    assert sorted(status for status, *_ in answers)[-1] == 429
    refused = next(answer for answer in answers if answer[0] == 429)
    assert refused[1]["error"]["code"] == "rate_limit_exceeded"
    assert refused[1]["error"]["type"] == "requests"
    assert 1 <= int(refused[2]["retry-after"]) <= 60
    assert answers[0][2]["x-ratelimit-limit-requests"] == "2"


def test_a_key_is_held_to_its_tokens_a_day(guarded: Served, fleet: FleetSite):
    secret = command(fleet, "keys", "add", "ana", "--daily-tokens", "8")
    answers = [ask(guarded, secret) for _ in range(5)]
    # A day may end in between.
    refused = [place for place, each in enumerate(answers) if each[0] == 429]
    assert refused[0] in (2, 3, 4)
    assert answers[refused[0]][1]["error"]["code"] == "insufficient_quota"


def test_a_key_is_held_to_its_tokens_in_batches(guarded: Served, fleet: FleetSite):
    url = "/v1/completions"
    lines = b"".join(
        orjson.dumps({"custom_id": f"{n}", "method": "POST", "url": url, "body": ASKED})
        + b"\n"
        for n in range(40)
    )
    key = ApiKey("ana", daily_tokens=100)
    own = {"Authorization": f"Bearer {add_api_key(fleet.store, key)}"}
    asked = {"endpoint": url, "completion_window": "24h"}
    asked["input_file_id"] = upload(guarded, lines, own)
    with holder(fleet, "limited"):
        batch = guarded.ask("/v1/batches", asked, headers=own)[1]["id"]

        def show() -> Any:
            return guarded.ask(f"/v1/batches/{batch}", headers=own)[1]

        def used() -> int:
            return sum(each.requests for each in read_books(fleet.store, 2))

        # Five tokens each.
        eventually(lambda: used() == 20, PATIENCE)
        assert show()["status"] == "in_progress"
        assert guarded.ask(url, ASKED, headers=own)[0] == 429
        own = {"Authorization": f"Bearer {add_api_key(fleet.store, ApiKey('ana'))}"}
        eventually(lambda: show()["status"] == "completed", PATIENCE)
        eventually(lambda: used() == 40, PATIENCE)


def test_the_books_say_what_was_used(guarded: Served, fleet: FleetSite):
    secret = command(fleet, "keys", "add", "ana")
    for _ in "12":
        ask(guarded, secret)
    status, content, _ = ask(guarded, secret, stream=True)
    assert (status, content.endswith(b"data: [DONE]\n\n")) == (200, True)
    # A stream is entered once its client has all of it.
    eventually(lambda: tokens_of(fleet, "ana") == 15, PATIENCE)
    # Two days, as one may end in between.
    found = json.loads(command(fleet, "usage", "--json", "--days", "2"))
    used = [each for each in found if each["key"] == "ana"]
    assert {each["model"] for each in used} == {"writer"}
    counts = ("requests", "prompt_tokens", "completion_tokens")
    assert [sum(each[name] for each in used) for name in counts] == [3, 6, 9]
    assert "ana" in command(fleet, "usage", "--days", "2")
    [head, *rows] = command(fleet, "usage", "--csv", "--days", "2").splitlines()
    assert head.startswith("key,day,model")
    assert len(rows) == len(used)
    assert all(row.startswith("ana,") for row in rows)


def tokens_of(fleet: FleetSite, key: str) -> int:
    """The tokens that the books have of a key."""
    found = (each for each in read_books(fleet.store, 2) if each.key == key)
    return sum(each.prompt_tokens + each.completion_tokens for each in found)


def test_what_is_repeated_is_counted_once(guarded: Served, fleet: FleetSite):
    own = {
        "Authorization": f"Bearer {command(fleet, 'keys', 'add', 'ana')}",
        "Idempotency-Key": "counted once",
    }
    several = ASKED | {"prompt": ["one two", "three four"]}
    for body, tokens in (
        (ASKED, 5),
        (ASKED, 5),
        (ASKED | {"stream": True}, 5),
        (several, 10),
        (several | {"stream": True}, 10),
        (ASKED | {"prompt": "other words"}, 15),
    ):
        assert guarded.ask("/v1/completions", body, headers=own)[0] == 200
        assert tokens_of(fleet, "ana") == tokens, body


@pytest.mark.parametrize("stream", [False, True])
def test_what_goes_on_after_its_client_is_counted_once(
    guarded: Served, fleet: FleetSite, stream: bool
):
    engine = fleet.engines["writer-0"]
    before = engine.stats()["received"]
    engine.fault(hang=True)
    secret = command(fleet, "keys", "add", "ana")
    own = {"Authorization": f"Bearer {secret}", "Idempotency-Key": f"left {stream}"}
    body = ASKED | {"stream": stream}
    with guarded.connected() as connection:
        connection.request("POST", "/v1/completions", json.dumps(body), own)
        eventually(lambda: engine.stats()["received"] > before, PATIENCE)
    engine.fault()
    eventually(lambda: tokens_of(fleet, "ana") == 5, PATIENCE)
    assert guarded.ask("/v1/completions", body, headers=own)[0] == 200
    assert tokens_of(fleet, "ana") == 5


def test_at_another_address_every_request_needs_a_key(site: FleetSite):
    with open_gateway(site, "--address", "0.0.0.0") as gateway:
        assert gateway.ask("/health")[0] == 200
        status, body, _ = gateway.ask("/v1/models")
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
