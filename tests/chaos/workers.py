"""Faults of workers: killed, killed often, paused, terminated."""

import random
import signal
import time

from benchmarks.machine import Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import Rig
from modelserver.store.fleet.workers import read_answers
from tests.chaos.load import COLUMNS, Account, Load
from tests.support.processes import eventually

#: Repetitions of worker-killed.
RUNS = 3
#: Kills of worker-killed-often.
KILLS = 200
#: How long these kills may take, in seconds.
KILLS_SECONDS = 600.0


def promises(accounts: list[Account], rerun_seconds: float = 0.0) -> tuple[Goal, ...]:
    """Nothing lost, nothing answered twice, all back within ``rerun_seconds``."""
    goals = [
        Goal("lost", sum(one.lost for one in accounts), 0, at_most=True),
        Goal("wrong", sum(one.wrong for one in accounts), 0, at_most=True),
        Goal("stored twice", sum(one.stored_twice for one in accounts), 0, "", True),
    ]
    if rerun_seconds:
        latest = max(one.quantile(1.0) for one in accounts)
        goals.append(Goal("last rerun", latest, rerun_seconds, "s", at_most=True))
    return tuple(goals)


def report(accounts: list[Account], rerun_seconds: float = 0.0, *notes: str) -> Report:
    """One row for each run, and the promises over all of them."""
    rows = tuple(account.row() for account in accounts)
    return Report(COLUMNS, rows, promises(accounts, rerun_seconds), notes)


def kill(rig: Rig, load: Load, worker: Processes) -> int:
    """SIGKILL a worker and note what it held; returns how many requests."""
    name = rig.name_of(worker)
    worker.signal(signal.SIGKILL)
    worker.process.wait(10)
    held = load.held_by(name)
    load.strike(held)
    return len(held)


def worker_killed(runs: int = RUNS) -> Report:
    """500 requests, one of two workers killed in the middle: all are answered once.

    Both workers take from the queue. What the dead one held is read from the store
    right after the kill; its time counts from the kill until its answer is published.
    """
    accounts = [_worker_killed(run) for run in range(runs)]
    return report(accounts, 10.0)


def _worker_killed(run: int) -> Account:
    with Rig("--latency", "0.5", limit=64) as rig:
        first, _ = rig.worker(), rig.worker()
        load = Load(rig)
        load.send(500)
        load.wait(150)
        eventually(lambda: len(load.held_by(rig.name_of(first))) >= 32)
        # Engines answer in waves here: kill at any point of one.
        time.sleep(random.uniform(0.1, 0.4))
        kill(rig, load, first)
        load.settle(within=60)
        return load.account(f"kill {run + 1}")


def worker_killed_often() -> Report:
    """200 kills of four workers under load: what they held comes back every time.

    Every kill hits a worker that holds requests, at a random moment while at least
    three are at work, and a new worker starts in its place at once. Leases are of one
    second so that kills overlap with the giving back, which any worker may be killed
    in, too. A request that too many dead workers held is set aside: that is rare here,
    where no request is to blame.
    """
    with Rig("--latency", "0.3", limit=16, lease_seconds=1.0) as rig:
        workers = [rig.worker() for _ in range(4)]
        load = Load(rig)
        kills, deadline = 0, time.monotonic() + KILLS_SECONDS
        while kills < KILLS and time.monotonic() < deadline:
            if len(load.unanswered()) < 200:
                load.send(40)
            time.sleep(random.uniform(0.05, 0.4))
            holding = [one for one in workers if _holds(rig, load, one)]
            if len(holding) < 3:
                continue
            victim = random.choice(holding)
            kill(rig, load, victim)
            kills += 1
            workers.remove(victim)
            workers.append(rig.worker(wait=False))
        load.settle(within=60)
        account = load.account(f"{kills} kills")
    done = Goal("kills", kills, KILLS)
    aside = Goal("set aside share", account.set_aside / account.sent, 0.02, "", True)
    told = report([account])
    return Report(told.columns, told.rows, (*told.goals, done, aside), told.notes)


def _holds(rig: Rig, load: Load, worker: Processes) -> bool:
    name = rig.name_of(worker)
    return bool(name and load.held_by(name))


def worker_paused() -> Report:
    """A worker stopped beyond its lease comes back: others' answers count, once.

    Its requests are answered by the other worker meanwhile. When it goes on it has its
    engine's answers to the same requests, which must be refused, and takes part again.
    """
    with Rig("--latency", "1.0", limit=64, lease_seconds=2.0) as rig:
        first, second = rig.worker(), rig.worker()
        load = Load(rig)
        load.send(300)
        eventually(lambda: len(load.held_by(rig.name_of(first))) >= 32)
        time.sleep(0.3)
        held = load.held_by(rig.name_of(first))
        first.signal(signal.SIGSTOP)
        load.strike(held)
        time.sleep(6.0)
        first.signal(signal.SIGCONT)
        load.settle(within=60)
        # Only the one that came back is there for these.
        eventually(lambda: rig.name_of(first))
        second.end()
        load.send(50)
        load.settle(within=60)
        account = load.account("paused 6 s, lease 2 s")
        totals = read_answers(rig.store)
    refused = f"late answers refused: {totals.get('fenced', 0)} as no longer its own, "
    refused += f"{totals.get('repeated', 0)} as answered already"
    return report([account], 12.0, refused)


def worker_terminated() -> Report:
    """SIGTERM with 256 in flight: they end within the grace time, or go back.

    Requests take three seconds. With a grace of 30 s the worker finishes them; with one
    of a second it gives them back, and the other worker answers them.
    """
    accounts, goals = [], []
    for grace in (30.0, 1.0):
        account, seconds = _terminated(grace)
        accounts.append(account)
        most = min(grace, 3.0) + 10.0
        name = f"end with grace {grace:g} s"
        goals.append(Goal(name, seconds, most, "s", at_most=True))
    again = accounts[0].run_twice
    goals.append(Goal("run twice with grace 30 s", again, 0, at_most=True))
    told = report(accounts)
    return Report(told.columns, told.rows, (*told.goals, *goals))


def _terminated(grace: float) -> tuple[Account, float]:
    with Rig("--latency", "3.0", limit=256, grace_seconds=grace) as rig:
        first = rig.worker()
        load = Load(rig)
        load.send(400)
        eventually(lambda: len(rig.engines[0].stats()["in_flight"]) >= 256)
        rig.worker()
        load.strike(load.held_by(rig.name_of(first)))
        began = time.monotonic()
        first.signal(signal.SIGTERM)
        first.process.wait(60)
        seconds = time.monotonic() - began
        load.settle(within=60)
        return load.account(f"grace {grace:g} s"), seconds
