"""Jobs of Slurm with two nodes, each of which is a host of the fleet."""

from benchmarks.report import Report
from modelserver.store.fleet.hosts import read_hosts
from tests.chaos.hosts import PATIENCE, Traffic
from tests.chaos.slurm import Jobs, account, run_on
from tests.support.processes import eventually


def slurm_nodes() -> Report:
    """Jobs of two nodes lose a node, reach their time and are preempted, under load.

    As slurm, with two slurmd on this machine. The first job has one of its nodes set
    down, and goes on with the other until its time is over.
    """
    return run_on(2, _run)


def _run(jobs: Jobs) -> Report:
    cluster, hosts = jobs.cluster, jobs.hosts
    job = jobs.submit(3)
    jobs.serves(job)
    rows = []
    with Traffic(hosts) as traffic:
        first, last = cluster.nodes
        down = f"{last}-job{job}"
        hosts.run("move", "m-1", down)
        eventually(lambda: hosts.ready("m-1").host == down, PATIENCE)
        hosts.run("move", "m-1", "--anywhere")
        cluster.run("scontrol", "update", f"node={last}", "state=down", "reason=chaos")
        eventually(lambda: _names(jobs) == {f"{first}-job{job}"}, PATIENCE)
        jobs.serves(job)
        # Its slurmd may have registered it again already.
        up = ("scontrol", "update", f"node={last}", "state=resume")
        cluster.run(*up, check=False)
        job, ends = jobs.submit(30), job
        rows.append(jobs.row("lost a node, reached its time", ends))
        jobs.serves(job)
        jobs.preempt()
        job, ends = jobs.submit(30), job
        rows.append(jobs.row("was preempted", ends))
        jobs.serves(job)
        job, ends = jobs.submit(1, ("#SBATCH --signal", "## --signal")), job
        cluster.run("scancel", ends)
        rows.append(jobs.row("was cancelled", ends))
        jobs.serves(job)
        # So that the next one is there before the one before it ends.
        job, ends = jobs.submit(30), job
        rows.append(jobs.row("reached its time, not warned", ends))
        jobs.serves(job)
    outcomes = traffic.outcomes()
    cluster.run("scancel", job)
    rows.append(jobs.row("was cancelled, empty", job))
    return account(hosts, rows, outcomes, 2 * len(rows) - 1, lost=[down])


def _names(jobs: Jobs) -> set[str]:
    return {host.name for host in read_hosts(jobs.hosts.store)}
