"""What is read of HTTP below the paths, by bare requests."""

import http.client
import json
import socket

import pytest

from tests.integration.gateway.conftest import Served
from tests.support.workers import FleetSite

#: With it the body is not sent before the gateway has read the head.
IN_TWO = "Expect: 100-continue"


def refusal(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """The status and the error that come next on a connection, in one part or more."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, json.loads(response.read())["error"]


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ("Transfer-Encoding: chunked", b"5\r\n{\r\n\r\nzz\r\n"),
        ("Content-Encoding: gzip\r\nContent-Length: 5", b"hello"),
        (f"Content-Encoding: gzip\r\nContent-Length: 5\r\n{IN_TWO}", b"hello"),
        ("A: \x00\r\nContent-Length: 2", b"{}"),
    ],
)
def test_what_is_no_http_is_refused_and_not_logged(
    gateway: Served, site: FleetSite, headers: str, content: bytes
):
    log = site.folder / "gateway.log"
    logged = log.read_text()
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n"
        if IN_TWO in headers:
            connection.sendall(head.encode())
            assert connection.recv(4096).split()[1] == b"100"
            connection.sendall(content)
        else:
            # Chunks that go wrong after their head are waited for, for 10 s.
            connection.sendall(head.encode() + content)
        status, error = refusal(connection)
        assert status == 400
        assert error["type"] == "invalid_request_error"
        assert not error["message"].endswith(":"), error
    assert log.read_text() == logged


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models", f"A: {'a' * 10_000}", 431),
        ("/v1/models", f"{'a' * 10_000}: a", 431),
        ("/v1/models", "\r\n".join(f"A{number}: a" for number in range(150)), 431),
        (f"/v1/files?after={'a' * 10_000}", "A: a", 414),
    ],
)
def test_a_head_that_is_too_large_is_refused(
    gateway: Served, path: str, headers: str, status: int
):
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n"
        connection.sendall(head.encode())
        found, error = refusal(connection)
    assert found == status
    assert error["type"] == "invalid_request_error"
    assert "aaa" not in error["message"]


@pytest.mark.parametrize(
    ("line", "headers", "is_chunked"),
    [
        ("POST /v1/completions HTTP/1.0", "", False),
        ("POST http://api.openai.com/v1/completions HTTP/1.1", "", False),
        ("POST /v1/completions?api-version=1 HTTP/1.1", "", False),
        ("POST /v1/completions HTTP/1.1", "Transfer-Encoding: chunked", True),
        ("POST /v1/completions HTTP/1.1", "Content-Type: text/plain", False),
        ("POST /v1/completions HTTP/1.1", "Accept: text/event-stream", False),
        (
            "POST /v1/completions HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            False,
        ),
    ],
)
def test_http_as_clients_of_other_languages_write_it_is_answered(
    gateway: Served, line: str, headers: str, is_chunked: bool
):
    body = json.dumps({"model": "writer", "prompt": "a", "max_tokens": 2})
    if is_chunked:
        body = f"{len(body):x};ext=1\r\n{body}\r\n0\r\nTrailer: 1\r\n\r\n"
    else:
        headers = f"Content-Length: {len(body)}" + (headers and f"\r\n{headers}")
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        connection.sendall(f"{line}\r\nHost: a\r\n{headers}\r\n\r\n{body}".encode())
        told = connection.recv(4096)
    assert told.split()[1] == b"200", told


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/embeddings", "/v1/embeddings"),
        ("/v1/chat%2Fcompletions", "/v1/chat/completions"),
    ],
)
def test_a_path_beside_one_of_ours_is_told_which_is_meant(
    gateway: Served, path: str, meant: str
):
    status, body, _ = gateway.ask(path, {})
    assert (status, body["error"]["code"]) == (404, "unknown_url")
    told = f"there is no POST {path} here; did you mean {meant}?"
    assert body["error"]["message"] == told


def test_a_method_that_a_path_does_not_take_is_told_those_that_it_does(gateway: Served):
    for path, allowed in (
        ("/v1/completions", "POST"),
        ("/v1/files", "GET, HEAD, POST"),
    ):
        status, _, headers = gateway.ask(path, method="OPTIONS")
        assert (status, headers["allow"]) == (405, allowed)


def test_what_nobody_can_expect_is_refused(gateway: Served):
    headers = {"Expect": "200-ok"}
    asked = {"model": "writer", "prompt": "hello"}
    status, body, _ = gateway.ask("/v1/completions", asked, headers=headers)
    assert (status, body["error"]["code"]) == (417, "expectation_failed")
