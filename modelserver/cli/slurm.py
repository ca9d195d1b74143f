"""``modelserver slurm``: a host of the fleet as a job of Slurm.

Each node of a job is one host, with a name of its own, so that many jobs may share a
machine. Its launcher and worker keep to the job's GPUs, and leave before the job's time
is over.
"""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from modelserver.cli.program_group import ProgramGroup
from modelserver.cli.programs import (
    environment,
    load_with_fleet,
    programs_folder,
    python_program,
)
from modelserver.cli.slurm_steps import Steps, find_nodes, host_name
from modelserver.errors import ConfigurationError, ModelserverError
from modelserver.fleet.key import KEY_FILE, KEY_VARIABLE
from modelserver.settings import Settings

#: Slurm kills so many seconds after its SIGTERM, unless its KillWait says otherwise.
KILL_WAIT_SECONDS = 30
#: What runs is given back so many seconds before Slurm kills.
LAST_SECONDS = 10
#: The folder of a job that wrote nothing for so many seconds is removed: a week.
KEPT_SECONDS = 7 * 86400.0
#: The folder in the home that has one folder for each job: jobs of one machine may not
#: share their run folders.
JOBS = "jobs"


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """What a job script asks Slurm for."""

    #: As Slurm spells times: minutes, or hours:minutes:seconds.
    time: str
    #: Seconds before its end that the job is told of it.
    warning_seconds: int
    #: GPUs of each node, 0 for none.
    gpus: int = 0
    #: How many such jobs.
    hosts: int = 1
    #: Nodes of each job, which begin and end together.
    nodes: int = 1
    #: Whether a job whose time is over queues up again.
    again: bool = False
    #: Further options of sbatch, each with its dashes.
    options: Sequence[str] = ()


def job_script(job: SlurmJob, settings: Settings) -> str:
    """The script for sbatch."""
    options = [
        "--job-name=modelserver",
        f"--nodes={job.nodes}",
        # The others go on where one fails.
        *(["--no-kill"] if job.nodes > 1 else []),
        f"--time={job.time}",
        # To the script alone, which has become modelserver: engines die of a USR1.
        f"--signal=B:USR1@{job.warning_seconds}",
        "--open-mode=append",
        *([f"--gpus-per-node={job.gpus}"] if job.gpus else []),
        *([f"--array=1-{job.hosts}"] if job.hosts > 1 else []),
        *(["--requeue"] if job.again else []),
        *([shlex.join(job.options)] if job.options else []),
    ]
    variables = {
        "MODELSERVER_FLEET": settings.fleet_file,
        "MODELSERVER_ENGINES_HOME": settings.engines_home,
    }
    jobs = shlex.quote(str(settings.home / JOBS))
    signed_by = settings.run_dir / KEY_FILE
    program = shlex.join(python_program("modelserver.cli"))
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        *(
            f"export {name}={shlex.quote(str(path))}"
            for name, path in variables.items()
        ),
        f"export MODELSERVER_HOME={jobs}/$SLURM_JOB_ID",
        f'export MODELSERVER_HOST="{host_name("$SLURMD_NODENAME", "$SLURM_JOB_ID")}"',
        # Each job has a run folder of its own, without the fleet's key.
        *(
            [f'export {KEY_VARIABLE}="$(cat {shlex.quote(str(signed_by))})"']
            if signed_by.exists()
            else []
        ),
        f"exec {program} slurm-job --warning-seconds={job.warning_seconds}"
        + " --again" * job.again,
    ]
    return "\n".join(lines) + "\n"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--time", "limit", default="12:00:00", show_default=True)
@click.option("--gpus", default=0, help="GPUs of each node.")
@click.option("--hosts", default=1, help="How many such jobs: an array.")
@click.option(
    "--nodes",
    default=1,
    help="Nodes of each job, each a host; they begin and end together.",
)
@click.option(
    "--warning-seconds",
    default=180,
    show_default=True,
    help="How long before its end a job begins to leave; Slurm may do so a minute "
    "earlier.",
)
@click.option(
    "--again", is_flag=True, help="A job whose time is over queues up once more."
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def slurm(
    limit: str,
    gpus: int,
    hosts: int,
    nodes: int,
    warning_seconds: int,
    again: bool,
    options: tuple[str, ...],
) -> None:
    """Write a job script that makes a host of the fleet: for `sbatch`.

    OPTIONS are further ones of sbatch, such as --partition=gpu.
    """
    settings = load_with_fleet()
    refuse_fleet(settings)
    job = SlurmJob(limit, warning_seconds, gpus, hosts, nodes, again, options)
    click.echo(job_script(job, settings), nl=False)


def refuse_fleet(settings: Settings) -> None:
    """Raises ConfigurationError where jobs could not be hosts of this fleet."""
    if settings.embedded:
        raise ConfigurationError(
            f"{settings.fleet_file} has the embedded server, which jobs on other "
            "machines cannot reach; set redis.url to one that they can"
        )
    if settings.fleet.hosts:
        raise ConfigurationError(
            f"{settings.fleet_file} names its hosts, and jobs have names that nobody "
            "knows before; take [[hosts]] out of it"
        )


@click.command("slurm-job")
@click.option("--warning-seconds", default=180, show_default=True)
@click.option("--kill-wait", default=KILL_WAIT_SECONDS, show_default=True)
@click.option("--again", is_flag=True)
def slurm_job(warning_seconds: int, kill_wait: int, again: bool) -> None:
    """Be a host of the fleet for as long as this job may: its launcher and worker.

    Where the job has several nodes, each of them is one. SIGUSR1 says that the time
    ends in --warning-seconds, SIGTERM that Slurm kills in --kill-wait seconds, which is
    its KillWait or GraceTime.
    """
    settings = load_with_fleet()
    for folder in find_old_jobs(settings.home.parent, time.time()):
        shutil.rmtree(folder, ignore_errors=True)
    if nodes := find_nodes(os.environ):
        seconds = (f"--warning-seconds={warning_seconds}", f"--kill-wait={kill_wait}")
        program = python_program("modelserver.cli", "slurm-job", *seconds)
        steps = Steps(nodes, program, environment(settings), click.echo)
        steps.run()
        told_by = steps.told_by
    else:
        told_by = _be_host(settings, warning_seconds, kill_wait)
    if again and told_by == [signal.SIGUSR1]:
        _queue_again(os.environ["SLURM_JOB_ID"])


def _be_host(settings: Settings, warning_seconds: int, kill_wait: int) -> list[int]:
    """Run launcher and worker until they have ended; the signals that told them to."""
    group = ProgramGroup(
        {
            "launcher": python_program("launcher"),
            "worker": python_program("modelserver.cli", "worker", "-l", "INFO"),
        },
        programs_folder(),
        environment(settings),
        click.echo,
        patience={
            signal.SIGUSR1: patience(warning_seconds),
            signal.SIGTERM: patience(kill_wait),
        },
        # To a launcher SIGQUIT means to leave its engines.
        hurried={"launcher": signal.SIGTERM},
        # A second one would end engines at once.
        sent_to_all={signal.SIGTERM},
    )
    group.run()
    return group.told_by


def _queue_again(job: str) -> None:
    argv = ["scontrol", "requeue", job]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelserverError(
            f"Slurm does not take job {job} once more ({done.stderr.strip()}); submit "
            "its script again"
        )


def patience(seconds: int) -> float:
    """After how many seconds what runs is given back, of those that are left.

    >>> patience(180), patience(30), patience(12)
    (170.0, 20.0, 6.0)
    """
    return float(max(seconds - LAST_SECONDS, seconds / 2))


def find_old_jobs(jobs: Path, now: float) -> Iterator[Path]:
    """The folders of jobs that have written nothing for a week."""
    for folder in jobs.glob("*") if jobs.name == JOBS else ():
        try:
            written = [path.lstat().st_mtime for path in (folder, *folder.rglob("*"))]
        except FileNotFoundError:
            continue  # A job goes on there, or another one has removed it.
        if folder.name.isdigit() and now - max(written) > KEPT_SECONDS:
            yield folder
