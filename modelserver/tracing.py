"""Traces of requests by OpenTelemetry, which is not imported where they are off.

A trace goes with a request's message from who submits it to the worker, and with the
HTTP request to the engine: in W3C's headers, ``traceparent`` and ``tracestate``.
"""

import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from modelserver.errors import ConfigurationError

#: The headers of a message that tell of its trace.
TRACE_HEADERS = ("traceparent", "tracestate")
#: What to do where traces are on and OpenTelemetry is not there.
INSTALL = (
    "MODELSERVER_TRACES is set, and OpenTelemetry cannot be imported ({}); "
    "pip install 'modelserver[otel]', or unset it"
)


@cache
def find_tracer(is_on: bool) -> "Tracer | None":
    """What makes the spans of this process, None where traces are off.

    Raises ConfigurationError without OpenTelemetry.
    """
    return Tracer() if is_on else None


def start_exporting(service: str) -> None:
    """Send this program's spans by OTLP, to where the variables OTEL_* say.

    Programs that only submit requests do this themselves, as they like.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(INSTALL.format(error)) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class Tracer:
    """Makes spans; what errors say is left out of them, for it may quote prompts."""

    def __init__(self, provider: Any = None) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError as error:
            raise ConfigurationError(INSTALL.format(error)) from error
        self._tracer = trace.get_tracer("modelserver", tracer_provider=provider)
        self._kinds, self._status = trace.SpanKind, trace.StatusCode
        self._trace, self._propagate = trace, propagate

    @contextmanager
    def submit(
        self, task: str, headers: MutableMapping[str, Any], parent: Mapping[str, str]
    ) -> Iterator[None]:
        """The span of a request that is sent; its message's headers tell of it.

        ``parent`` are the headers of the task that it is sent from, if there is one.
        """
        # A span of the caller's own is nearer than the task that it runs in.
        is_inside = self._trace.get_current_span().get_span_context().is_valid
        context = None if is_inside else self._propagate.extract(parent)
        with self._span(f"submit {task}", self._kinds.PRODUCER, context):
            self.inject(headers)
            yield

    def wait(
        self, trace: Mapping[str, str], model: str, task: str, sent_at: float | None
    ) -> None:
        """The span from a request's submission until now, when an engine is asked."""
        now = time.time()
        # Clocks of hosts differ.
        began = min(sent_at or now, now)
        span = self._tracer.start_span(
            f"wait {model}",
            self._propagate.extract(trace),
            self._kinds.CONSUMER,
            {"messaging.message.id": task, "gen_ai.request.model": model},
            start_time=int(began * 1e9),
        )
        span.end()

    @contextmanager
    def attempt(
        self, trace: Mapping[str, str], model: str, engine: str, task: str
    ) -> Iterator[None]:
        """The span of one attempt at an engine, which is told of it."""
        with self._span(
            f"attempt {engine}",
            self._kinds.CLIENT,
            self._propagate.extract(trace),
            {
                "messaging.message.id": task,
                "gen_ai.request.model": model,
                "modelserver.engine": engine,
            },
        ):
            yield

    @contextmanager
    def serve(self, headers: Mapping[str, str], what: str) -> Iterator[None]:
        """The span of an HTTP request to us, of the trace that it tells of."""
        context = self._propagate.extract(headers)
        with self._span(what, self._kinds.SERVER, context):
            yield

    def inject(self, headers: MutableMapping[str, Any]) -> None:
        """Tell of the span that is open here, if one is."""
        self._propagate.inject(headers)

    @contextmanager
    def _span(
        self,
        name: str,
        kind: Any,
        context: Any,
        attributes: Mapping[str, str] | None = None,
    ) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name,
            context,
            kind,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_status(self._status.ERROR)
                span.set_attribute("error.type", type(error).__name__)
                raise


def trace_of(context: Any) -> dict[str, str]:
    """What the headers of a message tell of its trace, from Celery's request."""
    found = {name: context.get(name) for name in TRACE_HEADERS}
    return {name: str(value) for name, value in found.items() if value}
