"""OpenAI's API in front of an engine: what each gateway adds and takes."""

import json
import math
import os
import statistics
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from benchmarks.http_load import Found, Load, full, trickle
from benchmarks.machine import START_SECONDS, Elsewhere, Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from benchmarks.stacks import python_of_requirements
from modelserver import settings as settings_module
from tests.support.processes import eventually, free_port

ROUNDS = 3
#: How long the engine takes for a request, in seconds.
ENGINE_SECONDS = 0.2
IN_FLIGHT = 512
#: Requests of the full load.
REQUESTS = 4_000
#: The light load: requests a second, and seconds.
LIGHT = (50.0, 6.0)
#: Streams at once, their tokens, and how long the engine takes for one, in seconds.
STREAMS, STREAM_TOKENS, STREAM_SECONDS = 200, 100, 4.0
#: What a gateway may take until it answers, in seconds; LiteLLM's takes long.
GATEWAY_SECONDS = 90.0
#: Gateways to measure, separated by commas; all if it says nothing.
CHOSEN = os.environ.get("MODELSERVER_BENCH_STACKS", "")
OURS, DIRECT = "modelserver", "engine itself"
LITELLM = """
model_list:
  - model_name: {model}
    litellm_params:
      model: hosted_vllm/{model}
      api_base: {engine}/v1
      api_key: unused
litellm_settings:
  request_timeout: 60
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one gateway; times are in seconds."""

    rate: float
    cpu_ms: float
    rss_mb: float
    p50: float
    p99: float
    stream_cpu_ms: float
    first: float
    failed: int
    others: float


def gateway() -> Report:
    """OpenAI's API: the engine itself, our gateway, LiteLLM's proxy, SGLang's router.

    The same engine of 200 ms behind each. Full load: 512 in flight; light load: 50
    requests a second, of which the latency is; 200 streams of 100 tokens at once. CPU
    and memory are the gateway's with its children: for ours, the worker's come on top,
    which the others do not have, nor its queue.
    """
    runs: dict[str, list[Figures]] = defaultdict(list)
    names = [DIRECT, OURS, "litellm", "sglang-router"]
    for number in range(ROUNDS):
        for name in names:
            if CHOSEN and name not in CHOSEN.split(","):
                continue
            figures = measure(name)
            runs[name].append(figures)
            print(f"  round {number + 1} {name}: {figures}", flush=True)
    return _report(runs)


def measure(name: str) -> Figures:
    """One run of one gateway."""
    with (
        Rig("--latency", str(ENGINE_SECONDS), limit=IN_FLIGHT) as rig,
        _gateway(name, rig) as (base, program),
    ):
        load = Load(base, CHAT_MODEL)
        full(load, 200, 64)
        elsewhere, cpu = Elsewhere(), _cpu(program)
        busy = full(load, REQUESTS, IN_FLIGHT)
        spent, others = _cpu(program) - cpu, elsewhere.cores()
        quiet = trickle(load, *LIGHT)
        rss = program.rss_mb() if program else math.nan
    with (
        Rig("--latency", str(STREAM_SECONDS), limit=IN_FLIGHT) as rig,
        _gateway(name, rig) as (base, program),
    ):
        load = Load(base, CHAT_MODEL, STREAM_TOKENS, stream=True)
        cpu = _cpu(program)
        streams = full(load, STREAMS, STREAMS)
        of_streams = _cpu(program) - cpu
    added = sorted(seconds - ENGINE_SECONDS for seconds in quiet.seconds)
    return Figures(
        rate=_steady_rate(busy),
        cpu_ms=1000 * spent / REQUESTS,
        rss_mb=rss,
        p50=statistics.median(added),
        p99=added[int(0.99 * len(added))],
        stream_cpu_ms=1000 * of_streams / max(streams.tokens, 1) * 1000,
        first=statistics.median(streams.first),
        failed=busy.failed + quiet.failed + streams.failed,
        others=others,
    )


def _steady_rate(found: Found) -> float:
    """Requests a second without the first and the last tenth."""
    ends = sorted(found.ends)
    tenth = len(ends) // 10
    return (len(ends) - 2 * tenth) / (ends[-tenth - 1] - ends[tenth])


def _cpu(program: Processes | None) -> float:
    return program.cpu_seconds() if program else math.nan


@contextmanager
def _gateway(name: str, rig: Rig) -> Iterator[tuple[str, Processes | None]]:
    """A gateway's address and its program."""
    engine = rig.engines[0].url
    if name == DIRECT:
        yield engine, None
        return
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    if name == OURS:
        rig.worker()
        argv = [sys.executable, "-m", "modelserver.cli", "serve", f"--port={port}"]
    else:
        python = python_of_requirements(
            "requirements-gateway.txt", settings_module.load()
        )
        argv = [str(python), "-m", "sglang_router.launch_router"]
        argv += ["--worker-urls", engine, "--port", str(port), "--host", "127.0.0.1"]
        argv += ["--prometheus-port", str(free_port()), "--log-level", "warn"]
        if name == "litellm":
            config = rig.folder / "litellm.yaml"
            config.write_text(LITELLM.format(model=CHAT_MODEL, engine=engine))
            argv = [str(python.with_name("litellm")), "--config", str(config)]
            argv += ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    # On loopback, for a minute: without a key, as the others.
    keyless = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    program = rig.program(argv, name, **keyless)
    eventually(lambda: _answers(base), within=GATEWAY_SECONDS)
    yield base, program


def _answers(base: str) -> bool:
    body = {"model": CHAT_MODEL, "prompt": "ready?", "max_tokens": 1}
    headers = {"Content-Type": "application/json"}
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{base}/v1/completions", data, headers)
    with (
        suppress(OSError),
        urllib.request.urlopen(request, timeout=START_SECONDS) as told,
    ):
        return bool(json.loads(told.read()).get("choices"))
    return False


def _report(runs: dict[str, list[Figures]]) -> Report:
    def middle(name: str, field: str) -> float:
        values = [float(getattr(run, field)) for run in runs.get(name, ())]
        return statistics.median(values) if values else math.nan

    rows = []
    for name, figures in runs.items():
        rates = [run.rate for run in figures]
        rows.append(
            (
                name,
                middle(name, "rate"),
                f"{min(rates):.0f}-{max(rates):.0f}",
                middle(name, "cpu_ms"),
                middle(name, "rss_mb"),
                1000 * middle(name, "p50"),
                1000 * middle(name, "p99"),
                1000 * (middle(name, "first") - middle(DIRECT, "first")),
                middle(name, "stream_cpu_ms"),
                max(run.failed for run in figures),
                middle(name, "others"),
            )
        )
    p50 = 1000 * (middle(OURS, "p50") - middle(DIRECT, "p50"))
    p99 = 1000 * (middle(OURS, "p99") - middle(DIRECT, "p99"))
    return Report(
        (
            "gateway",
            "requests/s",
            "spread",
            "CPU ms/request",
            "RSS MB",
            "added p50 ms",
            "added p99 ms",
            "added to first token ms",
            "CPU ms/1,000 tokens",
            "failed",
            "others' cores",
        ),
        tuple(rows),
        (
            Goal("gateway requests/s", middle(OURS, "rate"), 1000),
            Goal("gateway added p50", p50, 5, "ms", at_most=True),
            Goal("gateway added p99", p99, 20, "ms", at_most=True),
        ),
        (
            f"medians of {ROUNDS} rounds; latency at {LIGHT[0]:.0f} requests/s; the "
            "goals are beyond the engine asked directly",
        ),
    )
