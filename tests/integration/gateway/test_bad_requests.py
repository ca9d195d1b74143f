"""What the gateway refuses, and what it stands."""

import gzip
import http.client
import json
import random
import re
import socket
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.integration.gateway.conftest import Served, open_gateway
from tests.support.workers import FleetSite

#: Fields of a body, and one that nobody knows.
NAMES = (
    *("model", "prompt", "messages", "input", "max_tokens", "n", "temperature"),
    *("top_p", "stop", "stream", "seed", "stream_options", "logprobs", "echo", "user"),
    *("tools", "tool_choice", "response_format", "suffix", "logit_bias", "best_of"),
    *("encoding_format", "dimensions", "metadata", "unknown"),
)
HI = [{"role": "user", "content": "hi"}]
#: A path, a body, the status, the error's parameter and its code.
REFUSED: list[tuple[str, Any, int, str | None, str | None]] = [
    ("completions", {"prompt": "a"}, 400, "model", None),
    ("completions", {"model": "writer"}, 400, "prompt", None),
    ("completions", {"model": 5, "prompt": "a"}, 400, "model", None),
    ("completions", {"model": "x", "prompt": "a"}, 404, "model", "model_not_found"),
    ("completions", {"model": "vectors", "prompt": "a"}, 404, "model", None),
    ("completions", {"model": "writer", "prompt": []}, 400, "prompt", None),
    ("completions", {"model": "writer", "prompt": ["a", 5]}, 400, "prompt", None),
    ("completions", {"model": "writer", "prompt": {}}, 400, "prompt", None),
    ("completions", {"model": "writer", "prompt": ""}, 400, "prompt", None),
    ("completions", {"prompt": "a", "n": 0}, 400, "model", None),
    ("completions", {"prompt": "a", "n": 0, "model": "writer"}, 400, "n", None),
    ("completions", {"prompt": "a", "n": 129, "model": "writer"}, 400, "n", None),
    ("completions", {"prompt": "a", "n": "1", "model": "writer"}, 400, "n", None),
    ("completions", {"prompt": "a", "top_p": 2, "model": "writer"}, 400, "top_p", None),
    (
        "completions",
        {"prompt": "a", "stream": "yes", "model": "writer"},
        400,
        "stream",
        None,
    ),
    (
        "completions",
        {"prompt": "a", "stream_options": {"include_usage": True}, "model": "writer"},
        400,
        "stream_options",
        None,
    ),
    (
        "completions",
        {
            "prompt": "a",
            "stream": True,
            "stream_options": {"include_usage": "yes"},
            "model": "writer",
        },
        400,
        "stream_options",
        None,
    ),
    (
        "completions",
        {"prompt": "a", "max_tokens": 40_000, "model": "writer"},
        400,
        None,
        "context_length_exceeded",
    ),
    (
        "completions",
        {"prompt": [1] * 600_000, "model": "writer"},
        400,
        "prompt",
        "context_length_exceeded",
    ),
    ("completions", [1], 400, None, None),
    ("completions", "text", 400, None, None),
    ("chat/completions", {"model": "writer", "messages": []}, 400, "messages", None),
    ("chat/completions", {"model": "writer", "messages": [5]}, 400, "messages", None),
    ("chat/completions", {"model": "writer", "messages": "a"}, 400, "messages", None),
    (
        "chat/completions",
        {"model": "writer", "messages": [{"content": "a"}]},
        400,
        "messages",
        None,
    ),
    (
        "chat/completions",
        {"model": "writer", "messages": HI, "response_format": "json"},
        400,
        "response_format",
        None,
    ),
    ("embeddings", {"model": "vectors", "input": []}, 400, "input", None),
    ("embeddings", {"model": "vectors", "input": 5}, 400, "input", None),
    ("embeddings", {"model": "vectors", "input": ["a", ""]}, 400, "input", None),
    (
        "embeddings",
        {"model": "vectors", "input": "a", "encoding_format": "hex"},
        400,
        "encoding_format",
        None,
    ),
    ("embeddings", {"model": "vectors", "input": "a", "stream": True}, 400, None, None),
    ("embeddings", {"model": "writer", "input": "a"}, 404, "model", "model_not_found"),
    ("nothing", {"model": "writer"}, 404, None, "unknown_url"),
]


@pytest.mark.parametrize(("path", "body", "status", "param", "code"), REFUSED)
def test_a_bad_request_is_refused_in_openais_form(
    gateway: Served,
    path: str,
    body: Any,
    status: int,
    param: str | None,
    code: str | None,
):
    told, content, headers = gateway.ask(f"/v1/{path}", body)
    error = content["error"]
    assert told == status, error
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if param:
        assert error["param"] == param, error
    if code:
        assert error["code"] == code, error
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"model": "writer", "prompt": "\\ud800"}', 400),
        (b'{"model": "writer", "prompt": "a", "temperature": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"model": "writer", "prompt": "a", "seed": 1e400}', 400),
    ],
)
def test_a_body_that_is_no_json_is_refused(
    gateway: Served, content: bytes, status: int
):
    with gateway.connected() as connection:
        connection.request("POST", "/v1/completions", content)
        response = connection.getresponse()
        assert response.status == status, response.read()


def test_a_body_that_is_too_large_is_refused(gateway: Served):
    with gateway.connected() as connection:
        connection.putrequest("POST", "/v1/completions")
        connection.putheader("Content-Length", str(300_000_000))
        connection.endheaders()
        # It need not take it all before it answers, nor wait for us to read that.
        with suppress(OSError):
            for _ in range(300):
                connection.send(b" " * 1_000_000)
        with suppress(OSError, http.client.HTTPException):
            assert connection.getresponse().status == 413
    assert gateway.ask("/health")[0] == 200


def test_half_a_body_and_idle_connections_hold_nobody_up(gateway: Served):
    held = []
    for number in range(300):
        connection = socket.create_connection(("127.0.0.1", gateway.port))
        held.append(connection)
        if number % 2:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
    asked = {"model": "writer", "prompt": "meanwhile", "max_tokens": 2}
    assert gateway.ask("/v1/completions", asked)[0] == 200
    for connection in held:
        connection.close()
    assert gateway.ask("/health")[0] == 200


def test_more_connections_than_it_may_have_keep_nobody_out(site: FleetSite):
    few_files = ("sh", "-c", 'ulimit -n 600; exec "$@"', "sh")
    with open_gateway(site, prefix=few_files) as gateway, ExitStack() as all:
        idle = [socket.create_connection(("127.0.0.1", gateway.port), 30)]
        idle += [
            socket.create_connection(idle[0].getpeername(), 30) for _ in range(500)
        ]
        for connection in idle:
            all.enter_context(connection)
        assert idle[0].recv(1) == b""
        asked = {"model": "writer", "prompt": "meanwhile", "max_tokens": 2}
        assert gateway.ask("/v1/completions", asked)[0] == 200


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x-modelserver-priority", ("10", "-1", "1.0", "\u0663", "", "9" * 5_000)),
        ("x-modelserver-deadline", ("0", "-1", "nan", "inf", "a", "9" * 5_000)),
        ("x-modelserver-hedge", ("yes", "1", "True")),
    ],
)
def test_a_header_with_a_senseless_value_is_refused(
    gateway: Served, name: str, values: tuple[str, ...]
):
    asked = {"model": "writer", "prompt": "hello", "max_tokens": 2}
    for value in values:
        headers = {name: value.encode().decode("latin-1")}
        status, body, _ = gateway.ask("/v1/completions", asked, headers=headers)
        assert (status, body["error"]["param"]) == (400, name), value


@pytest.mark.parametrize("name", ["x-modelserver-submitter", "idempotency-key"])
def test_a_header_that_is_no_text_is_refused(gateway: Served, name: str):
    asked = {"model": "writer", "prompt": "hello", "max_tokens": 2}
    for value in (b"\xe9", b"\xff" * 500):
        status, body, _ = gateway.ask(
            "/v1/completions", asked, headers={name: value.decode("latin-1")}
        )
        assert (status, body["error"]["param"]) == (400, name), body
    sound = {name: "\u00e9".encode().decode("latin-1")}
    assert gateway.ask("/v1/completions", asked, headers=sound)[0] == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "odd", "gzip, gzip"])
def test_a_body_that_nobody_can_unpack_is_refused(gateway: Served, encoding: str):
    headers = {"Content-Encoding": encoding}
    status, body, _ = gateway.ask("/v1/completions", {}, headers=headers)
    assert (status, body["error"]["code"]) == (415, "unsupported_media_type")


def test_a_packed_body_is_answered_and_one_that_is_too_large_refused(gateway: Served):
    asked = json.dumps({"model": "writer", "prompt": "packed", "max_tokens": 2})
    for packed, status in (
        (gzip.compress(asked.encode()), 200),
        (gzip.compress(b" " * 65_000_000), 413),
        (gzip.compress(b"[" + b"[]," * 5_000_000 + b"0]"), 413),
        (gzip.compress(b"[" + b'"",' * 200_000 + b'""]'), 413),
        (gzip.compress(b'["' + b'\\",' * 500_000 + b'"]'), 400),
    ):
        with gateway.connected() as connection:
            headers = {"Content-Encoding": "gzip"}
            connection.request("POST", "/v1/completions", packed, headers)
            response = connection.getresponse()
            assert response.status == status, response.read()


def test_a_packed_form_is_refused_and_leaves_no_file(gateway: Served):
    files = gateway.ask("/v1/files")[1]["data"]
    form = (
        b'--m\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--m\r\nContent-Disposition: form-data; name="file"\r\n\r\n{}\r\n--m--\r\n'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=m"}
    for encoding in ("gzip", "br"):
        with gateway.connected() as connection:
            headers = kind | {"Content-Encoding": encoding}
            connection.request("POST", "/v1/files", gzip.compress(form), headers)
            response = connection.getresponse()
            assert response.status == 415, response.read()
    assert gateway.ask("/v1/files")[1]["data"] == files


@pytest.mark.parametrize(
    "form",
    [
        b"--m\r\nNone--m--\r\n",
        b'--m\r\nContent-Disposition: form-data; name="\x02"\r\n\r\na\r\n--m--\r\n',
        b'--m\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n' * 2
        + b"--m--\r\n",
        b'--m\r\nContent-Disposition: form-data; name="file"\r\n'
        b"Content-Transfer-Encoding: odd\r\n\r\na\r\n--m--\r\n",
        b'--m\r\nContent-Disposition: form-data; name="file"; filename="\x00"\r\n\r\n'
        b"a\r\n--m--\r\n",
        b"",
    ],
)
def test_a_form_that_is_none_is_refused_and_leaves_no_file(
    gateway: Served, form: bytes
):
    files = gateway.ask("/v1/files")[1]["data"]
    with gateway.connected() as connection:
        kind = {"Content-Type": "multipart/form-data; boundary=m"}
        connection.request("POST", "/v1/files", form, kind)
        response = connection.getresponse()
        told = response.read()
        assert response.status == 400, told
        assert b"\\n" not in told
    assert gateway.ask("/v1/files")[1]["data"] == files


def test_every_path_that_is_described_is_there(gateway: Served):
    described = gateway.ask("/openapi.json")[1]
    asked = described["paths"]["/v1/completions"]["post"]["requestBody"]
    properties = asked["content"]["application/json"]["schema"]["properties"]
    assert properties["model"]["enum"] == ["writer", "other"]
    for path, methods in described["paths"].items():
        for method in methods:
            body, where = {} if method == "post" else None, re.sub("{.+?}", "a", path)
            status, told, _ = gateway.ask(where, body, method.upper())
            assert status != 405, (method, path)
            assert status != 404 or told["error"]["code"] != "unknown_url", path


def test_bodies_by_chance_never_find_a_fault_of_ours(gateway: Served):
    chance = random.Random(5)
    odd = [None, True, -1, 0, 2.5, "", "a", [], [[]], {}, [None], {"a": []}, 10**12]
    sound = {"model": "writer", "prompt": "a", "messages": HI, "input": "a"}
    statuses = set()
    for number in range(200):
        body = dict(sound) if chance.random() < 0.8 else {}
        for _ in range(chance.randint(1, 3)):
            body[chance.choice(NAMES)] = chance.choice(odd)
        if body.get("max_tokens") == 10**12:
            body.pop("max_tokens")
        path = ("completions", "chat/completions", "embeddings")[number % 3]
        status = gateway.ask(f"/v1/{path}", body)[0]
        assert status != 500, (path, body)
        statuses.add(status)
    assert statuses <= {200, 400, 404}
    assert gateway.process.poll() is None
