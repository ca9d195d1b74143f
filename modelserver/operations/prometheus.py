"""The fleet's state for Prometheus, read from the store at each scrape.

Names are ``modelserver_*``, and for queues those of celery-exporter, which dashboards
for Celery know.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelserver.errors import StoreUnreachableError
from modelserver.operations.status import (
    EngineStatus,
    HostStatus,
    ModelStatus,
    Status,
    WorkerStatus,
    read_status,
)
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.alerts import counts
from modelserver.store.dead_letters import count_dead
from modelserver.store.workers import read_answers

ENGINE = ("engine", "model", "host")
GPU = ("host", "gpu", "uuid", "slice")


class FleetCollector(Collector):
    """Collects from the fleet's store; ``modelserver_up`` is 0 while that is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None

    def describe(self) -> list[Metric]:
        """Nothing beforehand, so that a start does not need the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of now."""
        try:
            found, up = self._read(), 1
        except StoreUnreachableError:
            # An embedded server may come back with another address.
            found, up, self._store = [], 0, None
        yield GaugeMetricFamily("modelserver_up", "Whether Redis answers.", up)
        yield from found

    def _read(self) -> list[Metric]:
        store = self._store or connect(self._settings)
        self._store = store
        status = read_status(store, self._settings)
        with store.reachable():
            return [
                *_models(status.models),
                *_engines(status.engines),
                *_hosts(status.hosts),
                *_workers(status.workers),
                *_control(status),
                *_totals(store),
            ]


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"modelserver_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"modelserver_{name}", text, labels=labels)


def _models(models: tuple[ModelStatus, ...]) -> Iterator[Metric]:
    ready = _gauge("model_engines_ready", "Engines that take requests.", "model")
    wanted = _gauge("model_engines_wanted", "Engines that control wants.", "model")
    standing = _gauge("model_standing", "1 for how it stands.", "model", "standing")
    length = GaugeMetricFamily(
        "celery_queue_length", "Requests that wait.", labels=("queue_name",)
    )
    takers = GaugeMetricFamily(
        "celery_active_consumer_count",
        "Workers that take them.",
        labels=("queue_name",),
    )
    for model in models:
        ready.add_metric([model.name], model.ready)
        wanted.add_metric([model.name], model.wanted)
        if model.standing:
            standing.add_metric([model.name, model.standing], 1)
        length.add_metric([model.queue.name], model.queue.backlog)
        takers.add_metric([model.queue.name], model.queue.workers)
    yield from (ready, wanted, standing, length, takers)


def _engines(engines: tuple[EngineStatus, ...]) -> Iterator[Metric]:
    state = _gauge("engine_state", "1 for its state.", *ENGINE, "state")
    seconds = _gauge(
        "engine_request_seconds",
        "Of the requests that are kept, at most 64.",
        *(*ENGINE, "quantile"),
    )
    gauges = {
        "inflight": _gauge("engine_inflight", "Requests on it.", *ENGINE),
        "limit": _gauge("engine_limit", "Requests that it gets at once.", *ENGINE),
        "incarnation": _gauge("engine_incarnation", "Its starts.", *ENGINE),
        "hung_seconds": _gauge(
            "engine_hung_seconds", "Since when it is silent with requests.", *ENGINE
        ),
    }
    counters = {
        "requests": _counter("engine_requests", "Attempts.", *ENGINE),
        "errors": _counter("engine_errors", "Those that it failed at.", *ENGINE),
        "prompt_tokens": _counter("engine_prompt_tokens", "Of requests.", *ENGINE),
        "completion_tokens": _counter(
            "engine_completion_tokens", "Of answers.", *ENGINE
        ),
    }
    held = _gauge("engine_held", "Whether it gets nothing new.", *ENGINE)
    numbers: dict[str, GaugeMetricFamily | CounterMetricFamily] = {**gauges, **counters}
    for engine in engines:
        labels = [engine.id, engine.model, engine.host]
        shown = engine.state.value if engine.host_live else "LOST"
        state.add_metric([*labels, shown], 1)
        held.add_metric(labels, bool(engine.hold))
        for name, family in numbers.items():
            family.add_metric(labels, getattr(engine, name))
        traffic = engine.traffic
        for quantile, value in (
            ("0.5", traffic.p50_seconds),
            ("0.95", traffic.p95_seconds),
        ):
            if value is not None:
                seconds.add_metric([*labels, quantile], value)
    yield from (state, held, seconds, *numbers.values())


def _hosts(hosts: tuple[HostStatus, ...]) -> Iterator[Metric]:
    live = _gauge("host_up", "1 for a host whose launcher reports.", "host")
    memory = _gauge("gpu_memory_bytes", "Of one GPU.", *GPU, "kind")
    faulty = _gauge("gpu_faulty", "Whether nothing is started on it.", *GPU)
    gauges = {
        "utilization": _gauge("gpu_utilization", "0 to 1.", *GPU),
        "temperature": _gauge("gpu_temperature_celsius", "Of one GPU.", *GPU),
        "power_watts": _gauge("gpu_power_watts", "Of one GPU.", *GPU),
    }
    for host in hosts:
        live.add_metric([host.name], 1)
        for gpu in host.gpus:
            labels = [host.name, str(gpu.index), gpu.uuid, gpu.mig]
            memory.add_metric([*labels, "total"], gpu.total)
            memory.add_metric([*labels, "used"], gpu.used)
            faulty.add_metric(labels, bool(gpu.fault))
            for name, family in gauges.items():
                if (value := getattr(gpu, name)) is not None:
                    family.add_metric(labels, value)
    yield from (live, memory, faulty, *gauges.values())


def _workers(workers: tuple[WorkerStatus, ...]) -> Iterator[Metric]:
    held = _gauge("worker_held", "Messages in its hands.", "worker", "host")
    inflight = _gauge("worker_inflight", "Requests on engines.", "worker", "host")
    for worker in workers:
        held.add_metric([worker.name, worker.host], worker.held)
        inflight.add_metric([worker.name, worker.host], worker.inflight)
    yield from (held, inflight)


def _control(status: Status) -> Iterator[Metric]:
    age = status.at - status.steered_at if status.steered_at else float("inf")
    yield GaugeMetricFamily(
        "modelserver_control_look_age_seconds", "Since control last looked.", age
    )
    yield GaugeMetricFamily(
        "modelserver_fleet_version", "Of the fleet in force.", status.fleet.version
    )
    yield GaugeMetricFamily(
        "modelserver_alerts_open", "Alerts that stand.", status.alerts
    )


def _totals(store: Store) -> Iterator[Metric]:
    alerts = _counter("alerts", "Alerts by what became of them.", "event")
    for event, number in counts(store).items():
        alerts.add_metric([event], number)
    answers = _counter(
        "answers", "Stored, or refused as repeated or as fenced.", "outcome"
    )
    for outcome, number in read_answers(store).items():
        answers.add_metric([outcome], number)
    yield from (alerts, answers)
    yield GaugeMetricFamily(
        "modelserver_dead_letters", "Requests set aside.", count_dead(store)
    )
