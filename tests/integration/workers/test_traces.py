"""One trace from a program through queue and worker to the engine."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.otel import otel_path, use_otel
from tests.support.processes import ROOT, ValkeyProcess, eventually
from tests.support.workers import open_fleet

use_otel()
wire = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
    reason="modelserver[otel] is not installed",
)
#: Asks within a span of its own, as a program that is traced does.
PROGRAM = """
import asyncio
from modelserver import complete
from modelserver.tracing import start_exporting
from opentelemetry import trace
start_exporting("pipeline")
with trace.get_tracer("pipeline").start_as_current_span("night run"):
    print(asyncio.run(complete.aio("hello", max_tokens=4)))
"""


@contextmanager
def collector() -> Iterator[tuple[str, dict[str, Any]]]:
    """Where spans are sent to: its URL, and what came, by name."""
    found: dict[str, Any] = {}

    class Collecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in wire.ExportTraceServiceRequest.FromString(
                body
            ).resource_spans:
                for scope in resource.scope_spans:
                    found.update({span.name: span for span in scope.spans})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collecting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_request_is_one_trace_from_its_program_to_its_engine(
    valkey: ValkeyProcess, tmp_path: Path
):
    with collector() as (url, found), open_fleet(tmp_path, valkey.url) as site:
        site.variables |= {
            "MODELSERVER_TRACES": "otel",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "no_proxy": "127.0.0.1",
            **otel_path(),
        }
        engine = site.engine("writer-0")
        site.worker()
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env={**os.environ, **site.environment},
            check=True,
        )
        names = {"night run", "submit modelserver.complete"}
        names |= {"wait writer", "attempt writer-0"}
        eventually(lambda: found.keys() >= names)
        told = engine.stats()["trace"].split("-")
    run, submit = found["night run"], found["submit modelserver.complete"]
    wait, attempt = found["wait writer"], found["attempt writer-0"]
    assert submit.parent_span_id == run.span_id
    assert wait.parent_span_id == attempt.parent_span_id == submit.span_id
    assert told[1:3] == [run.trace_id.hex(), attempt.span_id.hex()]
    assert len({span.trace_id for span in (run, submit, wait, attempt)}) == 1
    assert wait.end_time_unix_nano >= wait.start_time_unix_nano
    assert "hello" not in str(found)
