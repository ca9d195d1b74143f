"""A job of Slurm with several nodes: one step for each, and each step is a host.

Not one step for all of them: that would end with the first node that fails.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from modelserver.errors import ModelserverError

#: How often the steps are looked at, in seconds.
LOOK_SECONDS = 0.2


def find_nodes(variables: Mapping[str, str]) -> list[str]:
    """The nodes that this process is to start steps on; none for a host's own process.

    >>> find_nodes({"SLURM_JOB_NUM_NODES": "1"})
    []
    >>> find_nodes({"SLURM_JOB_NUM_NODES": "2", "SLURM_STEP_ID": "0"})
    []
    """
    if "SLURM_STEP_ID" in variables or variables.get("SLURM_JOB_NUM_NODES", "1") == "1":
        return []
    argv = ["scontrol", "show", "hostnames", variables["SLURM_JOB_NODELIST"]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelserverError(
            f"Slurm does not tell the nodes of this job: {done.stderr.strip()}"
        )
    return done.stdout.split()


def step(node: str, program: Sequence[str]) -> list[str]:
    """The argv of the step that is the host on a node, with all that the job has there.

    The step that has lost its node does not end the job.
    """
    options = ("--nodes=1", "--ntasks=1", f"--nodelist={node}", "--export=ALL")
    return ["srun", *options, "--no-kill", "--input=none", *program]


def host_name(node: str, job: str) -> str:
    """What the fleet calls a node of a job; other jobs may be hosts on it too."""
    return f"{node}-job{job}"


class Steps:
    """The steps of one job. Needs the main thread, for its signals."""

    def __init__(
        self,
        nodes: Sequence[str],
        program: Sequence[str],
        variables: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        """``program`` runs on each node, with ``variables``, and with a host's name
        and a home of its own."""
        self._nodes = nodes
        self._program = program
        self._variables = variables
        self._say = say
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        #: The signals that the job was told to end by, in order.
        self.told_by: list[int] = []
        #: Those of them that the steps have not been told of.
        self._untold: list[int] = []

    def run(self) -> None:
        """Run until all steps have ended; one that fails is not started again.

        Raises ModelserverError where all have failed by themselves.
        """
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._note)
        job = self._variables["SLURM_JOB_ID"]
        home = Path(self._variables["MODELSERVER_HOME"])
        for node in self._nodes:
            own = {
                "MODELSERVER_HOST": host_name(node, job),
                # Hosts of one machine would take each other's folders in one home.
                "MODELSERVER_HOME": str(home / node),
            }
            argv = step(node, self._program)
            self._running[node] = subprocess.Popen(argv, env={**self._variables, **own})
            self._say(f"{node} is started")
        statuses: list[int] = []
        while self._running:
            while self._untold:
                self._pass_on(self._untold.pop(0))
            for node, process in list(self._running.items()):
                if (status := process.poll()) is not None:
                    del self._running[node]
                    statuses.append(status)
                    self._say(f"{node} has ended (status {status})")
            time.sleep(LOOK_SECONDS)
        if all(statuses) and not self.told_by:
            raise ModelserverError("no node of this job is a host any more; see above")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.told_by.append(number)
        self._untold.append(number)

    def _pass_on(self, number: int) -> None:
        # Each step has a SIGTERM from Slurm itself; srun would kill its step for one.
        if number == signal.SIGUSR1:
            for process in self._running.values():
                process.send_signal(number)
