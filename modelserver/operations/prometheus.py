"""The fleet's state for Prometheus, read from the store at each scrape.

Names begin with ``modelserver_``; a queue's length is celery-exporter's, which
dashboards for Celery know.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import version

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from modelserver.errors import StoreUnreachableError
from modelserver.inventory import Host
from modelserver.measured import Metrics
from modelserver.operations.status import (
    EngineStatus,
    ModelStatus,
    Status,
    WorkerStatus,
    read_status,
)
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.alerts import COUNTED, counts
from modelserver.store.fleet.measurements import read_metrics, read_model_times
from modelserver.store.fleet.workers import read_answers, read_oldest
from modelserver.store.histograms import FIRST_TOKEN, TOOK, WAITED
from modelserver.store.messages.dead_letters import count_dead
from modelserver.store.messages.memory import Memory, read_memory

#: Labels of what is about one engine.
ENGINE_LABELS = ("engine", "model", "host")
#: Labels of what is about one GPU, or one slice of it.
GPU_LABELS = ("host", "gpu", "uuid", "slice")


class FleetCollector(Collector):
    """Collects from the store; ``modelserver_up`` is 0 while that does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None

    def describe(self) -> list[Metric]:
        """No metrics before the first scrape: a start does not need the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        try:
            found, up = self._read(), 1
        except StoreUnreachableError:
            # An embedded server may come back with another address.
            found, up, self._store = [], 0, None
        yield GaugeMetricFamily("modelserver_up", "1 if Redis answers, else 0.", up)
        yield from found

    def _read(self) -> list[Metric]:
        store = self._store or connect(self._settings)
        self._store = store
        status = read_status(store, self._settings)
        with store.reachable():
            return [
                *_models(status.models),
                *_waits(store, status),
                *_engines(status.engines),
                *_own_metrics(read_metrics(store), status.engines),
                *_server(read_memory(store)),
                *_hosts(status.hosts, status.lost_hosts),
                *_workers(status.workers),
                *_control(status),
                *_totals(store),
            ]


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"modelserver_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"modelserver_{name}", text, labels=labels)


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"modelserver_{name}", text, labels=labels)


def _models(models: tuple[ModelStatus, ...]) -> Iterator[Metric]:
    ready = _gauge(
        "model_engines_ready", "Engines of a model that take requests.", "model"
    )
    wanted = _gauge(
        "model_engines_wanted", "Engines of a model that control wants.", "model"
    )
    standing = _gauge(
        "model_standing",
        "1 for how a model stands now: serving, starting, waiting or down.",
        "model",
        "standing",
    )
    length = GaugeMetricFamily(
        "celery_queue_length", "Requests that wait in a queue.", labels=("queue_name",)
    )
    takers = _gauge(
        "queue_workers", "Live workers that can take from a queue.", "queue_name"
    )
    submitters = _gauge(
        "queue_submitter_messages",
        "Messages that wait in a queue, of those who have most of them.",
        *("queue_name", "submitter"),
    )
    cut_off = _counter("answers_cut_off", "Answers that max_tokens cut off.", "model")
    for model in models:
        ready.add_metric([model.name], model.ready)
        wanted.add_metric([model.name], model.wanted)
        if model.standing:
            standing.add_metric([model.name, model.standing], 1)
        length.add_metric([model.queue.name], model.queue.backlog)
        for name, count in model.queue.submitters.items():
            submitters.add_metric([model.queue.name, name], count)
        takers.add_metric([model.queue.name], model.queue.workers)
        cut_off.add_metric([model.name], model.cut_off)
    yield from (ready, wanted, standing, length, submitters, takers, cut_off)


def _waits(store: Store, status: Status) -> Iterator[Metric]:
    waited = _histogram(
        "queue_wait_seconds",
        "Seconds that requests had waited when an engine was first asked.",
        "model",
    )
    first_token = _histogram(
        "time_to_first_token_seconds",
        "Seconds from a request's submission to the first token of its stream.",
        "model",
    )
    oldest = _gauge(
        "queue_oldest_seconds",
        "Age of the request that has waited longest in a queue, 0 if none waits.",
        "queue_name",
    )
    names = [model.name for model in status.models]
    for name, counters in read_model_times(store, names).items():
        for family, kind in ((waited, WAITED), (first_token, FIRST_TOKEN)):
            times = kind.read(counters)
            family.add_metric([name], kind.buckets(times), times.seconds)
    for name, since in read_oldest(store, names).items():
        age = 0.0 if since is None else max(0.0, status.at - since)
        oldest.add_metric([name], age)
    yield from (waited, first_token, oldest)


def _engines(engines: tuple[EngineStatus, ...]) -> Iterator[Metric]:
    state = _gauge(
        "engine_state", "1 for the state that an engine is in.", *ENGINE_LABELS, "state"
    )
    seconds = _histogram(
        "engine_request_seconds",
        "Seconds that requests took an engine, those that went well.",
        *ENGINE_LABELS,
    )
    gauges = {
        "inflight": _gauge(
            "engine_inflight", "Requests that an engine works on now.", *ENGINE_LABELS
        ),
        "limit": _gauge(
            "engine_limit",
            "Requests that an engine gets at once, at most.",
            *ENGINE_LABELS,
        ),
        "incarnation": _gauge(
            "engine_incarnation", "Engine starts so far.", *ENGINE_LABELS
        ),
        "hung_seconds": _gauge(
            "engine_hung_seconds",
            "Seconds for which an engine with requests has produced no token.",
            *ENGINE_LABELS,
        ),
    }
    counters = {
        "requests": _counter(
            "engine_requests", "Attempts of requests at an engine.", *ENGINE_LABELS
        ),
        "errors": _counter(
            "engine_errors",
            "Attempts of requests that failed by the engine's fault.",
            *ENGINE_LABELS,
        ),
        "prompt_tokens": _counter(
            "engine_prompt_tokens",
            "Tokens of the prompts that an engine has read.",
            *ENGINE_LABELS,
        ),
        "completion_tokens": _counter(
            "engine_completion_tokens",
            "Tokens of the answers that an engine has generated.",
            *ENGINE_LABELS,
        ),
    }
    held = _gauge(
        "engine_held", "1 if an engine gets no new requests, else 0.", *ENGINE_LABELS
    )
    numbers: dict[str, GaugeMetricFamily | CounterMetricFamily] = {**gauges, **counters}
    for engine in engines:
        labels = [engine.id, engine.model, engine.host]
        shown = engine.state.value if engine.host_live else "LOST"
        state.add_metric([*labels, shown], 1)
        held.add_metric(labels, bool(engine.hold))
        for name, family in numbers.items():
            # What a lost host said last would be an alert without an end.
            if engine.host_live or name != "hung_seconds":
                family.add_metric(labels, getattr(engine, name))
        took = engine.durations
        seconds.add_metric(labels, TOOK.buckets(took), took.seconds)
    yield from (state, held, seconds, *numbers.values())


def _own_metrics(
    metrics: Mapping[str, Metrics], engines: tuple[EngineStatus, ...]
) -> Iterator[Metric]:
    """What engines tell of themselves; nothing of those whose host is lost."""
    waiting = _gauge(
        "engine_waiting", "Requests that an engine has not begun.", *ENGINE_LABELS
    )
    use = _gauge(
        "engine_kv_use", "Share of an engine's KV cache in use.", *ENGINE_LABELS
    )
    for engine in engines:
        if engine.host_live and (own := metrics.get(engine.id)):
            labels = [engine.id, engine.model, engine.host]
            waiting.add_metric(labels, own.waiting)
            use.add_metric(labels, own.kv_use)
    yield from (waiting, use)


def _server(memory: Memory) -> Iterator[Metric]:
    used = _gauge("redis_memory_bytes", "Memory of Redis in bytes.", "kind")
    used.add_metric(["used"], memory.used)
    if memory.limit:
        used.add_metric(["limit"], memory.limit)
    build = _gauge("build_info", "1, with the version of modelserver.", "version")
    build.add_metric([version("modelserver")], 1)
    yield from (used, build)


def _hosts(hosts: tuple[Host, ...], lost: tuple[str, ...]) -> Iterator[Metric]:
    live = _gauge(
        "host_up", "1 if a host's launcher reports, 0 if it was here.", "host"
    )
    memory = _gauge(
        "gpu_memory_bytes", "Memory of a GPU in bytes.", *GPU_LABELS, "kind"
    )
    faulty = _gauge(
        "gpu_faulty",
        "1 if a GPU has a fault and nothing is started on it, else 0.",
        *GPU_LABELS,
    )
    gauges = {
        "utilization": _gauge(
            "gpu_utilization",
            "Share of time that a GPU is at work, from 0 to 1.",
            *GPU_LABELS,
        ),
        "temperature": _gauge(
            "gpu_temperature_celsius", "Temperature of a GPU.", *GPU_LABELS
        ),
        "power_watts": _gauge(
            "gpu_power_watts", "Power that a GPU draws.", *GPU_LABELS
        ),
    }
    for name in lost:
        live.add_metric([name], 0)
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
    held = _gauge(
        "worker_held",
        "Messages that a worker has taken and not finished.",
        "worker",
        "host",
    )
    inflight = _gauge(
        "worker_inflight",
        "Requests that a worker has sent to engines.",
        "worker",
        "host",
    )
    for worker in workers:
        held.add_metric([worker.name, worker.host], worker.held)
        inflight.add_metric([worker.name, worker.host], worker.inflight)
    yield from (held, inflight)


def _control(status: Status) -> Iterator[Metric]:
    age = status.at - status.steered_at if status.steered_at else float("inf")
    yield GaugeMetricFamily(
        "modelserver_control_look_age_seconds",
        "Seconds since control last looked at the fleet.",
        age,
    )
    yield GaugeMetricFamily(
        "modelserver_fleet_version",
        "Version of the fleet in force.",
        status.fleet.version,
    )
    yield GaugeMetricFamily(
        "modelserver_alerts_open", "Alerts that are open now.", status.alerts
    )
    runs = _gauge("runs", "Submitted runs that have not ended, by state.", "state")
    for state in ("running", "waiting", "paused"):
        runs.add_metric([state], getattr(status.runs, state))
    yield runs


def _totals(store: Store) -> Iterator[Metric]:
    alerts = _counter("alerts", "Alerts so far, by what became of them.", "event")
    # What has not happened yet is 0, or its first time would be no rise.
    for event, number in (dict.fromkeys(COUNTED, 0) | counts(store)).items():
        alerts.add_metric([event], number)
    answers = _counter(
        "answers",
        "Answers so far: stored, or refused as repeated or as fenced.",
        "outcome",
    )
    for outcome, number in read_answers(store).items():
        answers.add_metric([outcome], number)
    yield from (alerts, answers)
    yield GaugeMetricFamily(
        "modelserver_dead_letters",
        "Requests set aside because engines died of them.",
        count_dead(store),
    )
