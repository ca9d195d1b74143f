"""A Slurm of one machine, of its own: munge, a controller and some nodes."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.support.processes import end, eventually, free_port
from tests.support.trial import Trial

#: Programs without which there is no Slurm on this machine.
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
#: How long Slurm waits after a SIGTERM until it kills, in seconds: its usual time.
KILL_WAIT = 30
CONFIGURATION = """
ClusterName=chaos
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SlurmdParameters=config_overrides
ReturnToService=2
KillWait={kill_wait}
MailProg=/bin/true
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime={kill_wait}
PartitionName=urgent Nodes=ALL PriorityTier=2
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8\n"


def find_missing() -> list[str]:
    """The programs of Slurm that this machine has not."""
    return [name for name in NEEDED if not shutil.which(name, path=_path())]


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _end(program: "subprocess.Popen[bytes]") -> None:
    program.terminate()
    with suppress(subprocess.TimeoutExpired):
        program.wait(10)
    end(program)


class Cluster(Trial):
    """Its programs live in the foreground, and end with it. A context manager."""

    def __init__(self, environment: Mapping[str, str], nodes: int = 1) -> None:
        """``environment`` is added to this process's, for jobs too."""
        super().__init__("slurm")
        #: The names of its nodes.
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.environment = {**os.environ, **environment, "PATH": _path()}

    def _open(self) -> None:
        self.environment["SLURM_CONF"] = str(self.folder / "slurm.conf")
        for name in ("munge", "state", *(f"spool-{each}" for each in self.nodes)):
            (self.folder / name).mkdir(mode=0o755)
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = socket.gethostname()
        written = CONFIGURATION.format(
            host=host,
            user=getpass.getuser(),
            folder=self.folder,
            controller=free_port(),
            kill_wait=KILL_WAIT,
        )
        for name in self.nodes:
            written += NODE.format(name=name, host=host, port=free_port())
        (self.folder / "slurm.conf").write_text(written)
        names = {"socket": "socket", "key-file": "key", "pid-file": "pid"}
        munge = [f"--{each}={self.folder}/munge/{name}" for each, name in names.items()]
        log = f"--log-file={self.folder}/munge/log"
        self._start("munged", "--foreground", "--force", *munge, log)
        eventually((self.folder / "munge/socket").exists)
        self._start("slurmctld", "-D")
        for name in self.nodes:
            self._start("slurmd", "-D", "-N", name)
        self.keep(self._end_jobs)
        idle = ["idle"] * len(self.nodes)
        sinfo = ("sinfo", "-hN", "-p", "main", "-o", "%T")
        eventually(lambda: self.run(*sinfo).split() == idle)

    def _end_jobs(self) -> None:
        """Wait for their ends, of which each slurmstepd has to tell the controller."""
        self.run("scancel", "-u", getpass.getuser(), check=False)
        eventually(lambda: not self.run("squeue", "-h", check=False), KILL_WAIT + 60)

    def _start(self, *argv: str) -> None:
        with (self.folder / f"{argv[0]}.log").open("ab") as log:
            program = subprocess.Popen(
                argv, env=self.environment, stdout=log, stderr=log
            )
        self.keep(_end, program)

    def run(self, *argv: str, check: bool = True) -> str:
        """A command of Slurm; what it printed."""
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.stderr}")
        return done.stdout

    def submit(self, script: Path, *options: str) -> str:
        """The number of a new job."""
        log = f"--output={self.folder}/job-%j.log"
        return self.run("sbatch", "--parsable", log, *options, str(script)).strip()

    def state(self, job: str) -> str:
        """What has become of a job: PENDING, RUNNING, COMPLETED, TIMEOUT, ..."""
        told = self.run("scontrol", "-o", "show", "job", job)
        return told.partition("JobState=")[2].partition(" ")[0]

    def count_nodes(self, job: str) -> int:
        """How many nodes a job has now."""
        return int(self.run("squeue", "-h", "-j", job, "-o", "%D"))

    def until(self, job: str, *states: str, within: float) -> float:
        """Wait until a job is in one of these states; the seconds that it took."""
        began = time.monotonic()
        eventually(lambda: self.state(job) in states, within)
        return time.monotonic() - began

    def said(self, job: str) -> str:
        """What a job has printed."""
        return (self.folder / f"job-{job}.log").read_text()
