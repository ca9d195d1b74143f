"""Hosts of a fleet that are jobs of Slurm, and end in each way that a job may."""

import re
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.report import Goal, Report
from modelserver.store.fleet.alerts import last_alerts
from modelserver.store.fleet.engines import read_engines
from modelserver.store.fleet.hosts import read_host_names, read_hosts
from modelserver.store.messages.dead_letters import count_dead
from tests.chaos.hosts import PATIENCE, Traffic, hosts_of
from tests.chaos.slurm_cluster import KILL_WAIT, Cluster, find_missing
from tests.support.fleets import Hosts, model
from tests.support.processes import eventually

#: How long a job may take to end after Slurm has told it, in seconds.
END_SECONDS = KILL_WAIT + 10.0
#: How long the longest of the jobs may run until Slurm ends it, in seconds: it looks
#: for such jobs every half minute.
LIMIT_SECONDS = 360.0
ENDED = ("COMPLETED", "TIMEOUT", "CANCELLED", "PREEMPTED", "FAILED", "NODE_FAIL")
COLUMNS = ("the job", "state", "ended orderly", "engines died", "incidents")


@dataclass
class Jobs:
    """The jobs of one fleet, each with as many hosts as the cluster has nodes."""

    cluster: Cluster
    hosts: Hosts

    def submit(self, minutes: int, *changes: tuple[str, str]) -> str:
        """Have the command line write a job script, and submit it."""
        nodes = f"--nodes={len(self.cluster.nodes)}"
        options = (f"--time={minutes}", "--warning-seconds=60", nodes)
        written = self.hosts.run("slurm", *options)
        assert written.returncode == 0, written.stderr
        text = written.stdout
        for old, new in changes:
            text = text.replace(old, new)
        script = self.cluster.folder / "job.sh"
        script.write_text(text)
        return self.cluster.submit(script)

    def serves(self, job: str) -> None:
        """Wait until each node of a job is a host, and engines serve on one or more."""
        self.cluster.until(job, "RUNNING", within=PATIENCE)

        def there() -> bool:
            store = self.hosts.store
            live = [host.name for host in read_hosts(store) if _is_of(host.name, job)]
            serving = [
                each.host for each in read_engines(store).values() if each.serves
            ]
            return len(live) == self.cluster.count_nodes(job) and bool(
                {*live} & {*serving}
            )

        with suppress(AssertionError):
            eventually(there, PATIENCE)
            return
        raise AssertionError(f"job {job} serves nothing: {self.cluster.said(job)}")

    def preempt(self) -> None:
        """Submit what takes all nodes for a moment."""
        urgent = self.cluster.folder / "urgent.sh"
        urgent.write_text("#!/bin/bash\nsleep 2\n")
        nodes = f"--nodes={len(self.cluster.nodes)}"
        self.cluster.submit(urgent, "--partition=urgent", "--exclusive", nodes)

    def row(self, name: str, job: str) -> tuple[str, str, int, int, int]:
        """What became of a job, once it has ended, as a row under COLUMNS."""
        self.cluster.until(job, *ENDED, within=LIMIT_SECONDS)
        said = self.cluster.said(job)
        ends = [said.count(f"{part} has ended") for part in ("launcher", "worker")]
        died = len(re.findall(r"-> (BACKOFF|FATAL)", said))
        kept = self.hosts.folder.glob(f"operator/jobs/{job}/**/incidents/*")
        state = self.cluster.state(job)
        return (name, state, min(ends), died, len(list(kept)))


def slurm() -> Report:
    """Jobs of a real Slurm end by their time, a cancel and a preemption, under load.

    Each is a host with a launcher, a worker and test engines of 0.5 s a request; ten
    requests a second are sent all the while. One job is warned by --signal before its
    time is over, one is not; one is cancelled, one preempted. The last one serves on.
    """
    return run_on(1, _run)


def run_on(nodes: int, run: Callable[[Jobs], Report]) -> Report:
    """A run with a Slurm of so many nodes, and a fleet that has its jobs as hosts."""
    missing = find_missing()
    if missing:
        note = f"skipped: no {', '.join(missing)}; apt-get install slurm-wlm munge"
        return Report(COLUMNS, (), (), (note,))
    engine = model("m", "--latency", "0.5", min_engines=2, max_engines=2)
    with hosts_of(engine) as (hosts, _), Cluster(hosts.environment(), nodes) as cluster:
        return run(Jobs(cluster, hosts))


def _run(jobs: Jobs) -> Report:
    cluster, hosts = jobs.cluster, jobs.hosts
    job = jobs.submit(1, ("#SBATCH --signal", "## --signal"))
    jobs.serves(job)
    rows = []
    with Traffic(hosts) as traffic:
        # The next one is there before the one before it ends.
        job, ends = jobs.submit(4), job
        rows.append(jobs.row("reached its time, not warned", ends))
        jobs.serves(job)
        job, ends = jobs.submit(30), job
        rows.append(jobs.row("reached its time, warned", ends))
        jobs.serves(job)
        job, ends = jobs.submit(30), job
        cluster.run("scancel", ends)
        rows.append(jobs.row("was cancelled", ends))
        jobs.serves(job)
        jobs.preempt()
        job, ends = jobs.submit(30), job
        rows.append(jobs.row("was preempted", ends))
        jobs.serves(job)
    outcomes = traffic.outcomes()
    cluster.run("scancel", job)
    rows.append(jobs.row("was cancelled, empty", job))
    return account(hosts, rows, outcomes, len(rows))


def account(
    hosts: Hosts,
    rows: list[tuple[str, str, int, int, int]],
    outcomes: Counter[str],
    orderly: int,
    lost: Collection[str] = (),
) -> Report:
    """What became of jobs, of which so many hosts should have ended orderly.

    Hosts that were ``lost`` stay on record, as any that is gone without a word.
    """
    sent, right = outcomes.total(), outcomes["right"]
    store = hosts.store
    alerts = [f"{each.event} {each.text}" for each in last_alerts(store, 100)]
    left = {*read_engines(store), *read_host_names(store)} - {*lost}
    return Report(
        COLUMNS,
        tuple(rows),
        (
            Goal("requests failed", sent - right, 0, at_most=True),
            Goal("requests sent", sent, 100),
            Goal("ended orderly", sum(row[2] for row in rows), orderly),
            Goal("engines died", sum(row[3] for row in rows), 0, at_most=True),
            Goal("incidents", sum(row[4] for row in rows), 0, at_most=True),
            Goal("set aside", count_dead(store), 0, at_most=True),
            Goal("left behind", len(left), 0, at_most=True),
        ),
        (f"{sent} requests were sent, {right} answered", *alerts, *left),
    )


def _is_of(host: str, job: str) -> bool:
    return host.endswith(f"-job{job}")
