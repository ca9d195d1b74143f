"""The spans of a request, into an exporter that keeps them in memory."""

import os
import subprocess
import sys
from typing import Any

import pytest

from modelserver.tracing import Tracer, find_tracer, trace_of
from tests.support.otel import otel_path, use_otel
from tests.support.processes import ROOT

use_otel()
memory = pytest.importorskip(
    "opentelemetry.sdk.trace.export.in_memory_span_exporter",
    reason="modelserver[otel] is not installed",
)
#: Everything that may be asked to trace, with traces off. Redis' client imports parts
#: of OpenTelemetry by itself, none of these.
IMPORTING = """
import sys, modelserver.api, modelserver.gateway.server, workers.service
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.propagate")
print([name for name in sys.modules if name.startswith(parts)])
"""


@pytest.fixture
def exporter() -> Any:
    return memory.InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: Any) -> Tracer:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracer(provider)


def spans(exporter: Any) -> dict[str, Any]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_message_carries_a_trace_from_its_submission_to_the_engine(
    tracer: Tracer, exporter: Any
):
    message: dict[str, Any] = {"deadline": 3}
    with tracer.submit("modelserver.complete", message, {}):
        pass
    trace = trace_of(message)
    assert trace.keys() == {"traceparent"}
    tracer.wait(trace, "chat", "t-1", 17.5)
    sent: dict[str, str] = {}
    with tracer.attempt(trace, "chat", "chat-0", "t-1"):
        tracer.inject(sent)
    found = spans(exporter)
    submit, wait = found["submit modelserver.complete"], found["wait chat"]
    attempt = found["attempt chat-0"]
    assert wait.parent.span_id == attempt.parent.span_id == submit.context.span_id
    assert wait.start_time == 17_500_000_000
    assert f"{attempt.context.span_id:016x}" in sent["traceparent"]
    assert f"{submit.context.trace_id:032x}" in sent["traceparent"]
    assert attempt.attributes["messaging.message.id"] == "t-1"


def test_a_step_of_a_chain_goes_on_with_the_trace_of_the_one_before(
    tracer: Tracer, exporter: Any
):
    first: dict[str, Any] = {}
    with tracer.submit("first", first, {}):
        pass
    with tracer.submit("next", {}, trace_of(first)):
        pass
    found = spans(exporter)
    assert found["submit next"].parent.span_id == found["submit first"].context.span_id


def test_a_gateway_goes_on_with_the_trace_of_its_client(tracer: Tracer, exporter: Any):
    told = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    message: dict[str, Any] = {}
    with (
        tracer.serve(told, "POST /v1/completions"),
        tracer.submit("modelserver.complete", message, {}),
    ):
        pass
    assert message["traceparent"].startswith(f"00-{'ab' * 16}-")
    served = spans(exporter)["POST /v1/completions"]
    assert served.parent.span_id == int("cd" * 8, 16)


def test_what_an_error_says_is_left_out(tracer: Tracer, exporter: Any):
    with (
        pytest.raises(ValueError, match="a secret prompt"),
        tracer.attempt({}, "chat", "chat-0", "t-1"),
    ):
        raise ValueError("a secret prompt")
    span = exporter.get_finished_spans()[0]
    assert span.attributes["error.type"] == "ValueError"
    assert not span.status.is_ok
    assert "secret" not in span.to_json()


def test_a_producer_without_a_provider_tells_of_no_trace():
    message: dict[str, Any] = {}
    tracer = find_tracer(True)
    assert tracer
    with tracer.submit("modelserver.complete", message, {}):
        pass
    assert trace_of(message) == {}


def test_nothing_is_imported_where_traces_are_off():
    assert find_tracer(False) is None
    argv = [sys.executable, "-c", IMPORTING]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **otel_path()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
