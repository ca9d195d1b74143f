"""A step of load moves a GPU from one model to another; a third sleeps and wakes."""

import time
from dataclasses import dataclass, field

from benchmarks.report import Goal, Report
from modelserver.store.fleet.engines import read_engines
from tests.chaos.gpu_ground import Ground, Requests, Trickle
from tests.nvml import StubGpu
from tests.nvml.fleet import section
from tests.support.processes import eventually

HOT, COLD, SLEEPY = "hot", "cold", "sleepy"
#: Engines of the model that has more than it needs, before a GPU moves.
COLD_ENGINES = 2
#: Requests of the step. One engine answers 5 a second, and must have more than 100 s of
#: work left after three looks of control, 30 s apart.
STEP = 1200
#: An engine gives its GPU only once its model has been watched for 300 s.
WATCHED_SECONDS = 225.0
#: The third model ends its engine after this time without a request, in seconds.
IDLE_SECONDS = 15.0
#: How long an engine that ends may take to finish its requests, in seconds.
DRAIN_SECONDS = 20.0


@dataclass
class _Seen:
    """What was measured, in seconds, and the engine that ended."""

    woken: list[float] = field(default_factory=list)
    slept: float = float("nan")
    serves: float = float("nan")
    released: float = float("nan")
    emptied: float = float("nan")


def gpus_moved() -> Report:
    """A step of load on one model makes control move a GPU of another one to it.

    Two real launchers with a stub of NVML, a worker on each host, test engines, control
    in this process; rules and times are those of production. The first model has one
    engine and may have two, the second has two and needs one. A third has none while
    nobody asks: it is woken twice, and falls asleep, while control watches the others.
    """
    seen = _Seen()
    hosts = {
        "h0": [StubGpu("GPU-h0-0"), StubGpu("GPU-h0-1")],
        "h1": [StubGpu("GPU-h1-0"), StubGpu("GPU-h1-1", total=24)],
    }
    with Ground(hosts, _models()) as ground:
        requests = {name: Requests(ground, name) for name in (HOT, COLD, SLEEPY)}
        _until_ready(ground, {f"{HOT}-0", f"{COLD}-0", f"{COLD}-1"})
        ground.apply(f"min_engines = {COLD_ENGINES}", "min_engines = 1")
        ground.forget()
        began = time.monotonic()
        trickles = [Trickle(requests[HOT], 1.0), Trickle(requests[COLD], 2.0)]
        try:
            _sleep_and_wake(ground, requests[SLEEPY], seen)
            time.sleep(max(0.0, began + WATCHED_SECONDS - time.monotonic()))
            _step(ground, requests[HOT], seen)
        finally:
            for trickle in trickles:
                trickle.stop()
        for each in requests.values():
            eventually(lambda each=each: each.answered() == len(each.prompts), 120)
        time.sleep(0.5)  # A result stored twice would come right behind.
        return _report(ground, requests, seen)


def _models() -> list[str]:
    whole = {"gpus": 1, "gpu_memory_gib": 60, "drain_seconds": DRAIN_SECONDS}
    return [
        _model(HOT, 0.8, max_running=4, min_engines=1, max_engines=2, **whole),
        _model(COLD, 4.0, max_running=16, **whole)
        + f"min_engines = {COLD_ENGINES}\nmax_engines = {COLD_ENGINES}\n",
        _model(
            SLEEPY,
            0.1,
            gpus=1,
            gpu_memory_gib=10,
            share_gpu=True,
            min_engines=0,
            max_engines=1,
            idle_seconds=IDLE_SECONDS,
        ),
    ]


def _model(name: str, latency: float, **keys: object) -> str:
    options = f'"{{model}}", "--latency", "{latency}"'
    return section(name, **keys).replace('"{model}"', options)


def _until_ready(ground: Ground, engines: set[str]) -> None:
    eventually(lambda: set(ground.fleet.ready()) == engines)


def _sleep_and_wake(ground: Ground, requests: Requests, seen: _Seen) -> None:
    for turn in range(2):
        (request,) = requests.send()
        seen.woken.append(requests.seconds(request, within=60))
        if turn == 0:
            began = time.monotonic()
            gone = lambda: f"{SLEEPY}-0" not in read_engines(ground.fleet.store)  # noqa: E731
            eventually(gone, IDLE_SECONDS + 30)
            seen.slept = time.monotonic() - began


def _step(ground: Ground, requests: Requests, seen: _Seen) -> None:
    requests.send(STEP)
    began = time.monotonic()

    def ended() -> bool:
        return len([e for e in ground.fleet.ready() if e.startswith(COLD)]) == 1

    eventually(ended, 240)
    seen.released = time.monotonic() - began
    eventually(lambda: f"{HOT}-1" in ground.fleet.ready(), 120)
    seen.serves = time.monotonic() - began
    eventually(lambda: requests.answered() >= STEP, 240)
    seen.emptied = time.monotonic() - began


def _report(ground: Ground, requests: dict[str, Requests], seen: _Seen) -> Report:
    past = ground.past()
    pairs = {(each.donor, each.taker) for each in past}
    reversals = sum((taker, donor) in pairs for donor, taker in pairs)
    accounts = {name: each.account() for name, each in requests.items()}
    least = {HOT: 1, COLD: 1, SLEEPY: 0}
    most = {HOT: 2, COLD: COLD_ENGINES, SLEEPY: 1}
    below = sum(min(ground.serving[name]) < least[name] for name in least)
    above = sum(max(ground.wanted[name]) > most[name] for name in most)
    rows = tuple(
        (
            name,
            *accounts[name].values(),
            f"{min(ground.serving[name])}-{max(ground.serving[name])}",
        )
        for name in accounts
    )
    totals = {
        key: sum(account[key] for account in accounts.values())
        for key in ("lost", "wrong", "stored twice")
    }
    bad = {
        **totals,
        "requests that an engine gave up": ground.failures(
            *(f"{HOT}-{n}" for n in range(2)), *(f"{COLD}-{n}" for n in range(2))
        ),
        "GPUs with two engines": ground.crowded,
        "models below min_engines": below,
        "models above max_engines": above,
        "reversals": reversals,
    }
    goals = [Goal(name, count, 0, "", True) for name, count in bad.items()]
    goals += [
        Goal("moves", len(past), 1),
        Goal("moves at most", len(past), 3, "", True),
        Goal("step to new engine serving", seen.serves, 150, "s", True),
        Goal("woken by a request", max(seen.woken), 30, "s", True),
        Goal("asleep after the last request", seen.slept, IDLE_SECONDS + 15, "s", True),
    ]
    notes = (
        f"seconds from the step: {seen.released:.1f} until the donor takes no more, "
        f"{seen.serves:.1f} until the new engine serves, {seen.emptied:.1f} until all "
        f"{STEP} are answered",
        f"{SLEEPY}: woken in {', '.join(f'{each:.1f} s' for each in seen.woken)}; "
        f"its engine is gone {seen.slept:.1f} s after the last answer "
        f"(idle_seconds {IDLE_SECONDS:g})",
        f"moves: {', '.join(f'{each.donor} to {each.taker}' for each in past)}",
    )
    columns = ("model", "sent", "lost", "wrong", "stored twice", "engines serving")
    return Report(columns, rows, tuple(goals), notes)
