"""What a job script asks of Slurm, and whose folders are collected."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelserver.cli.slurm import (
    KEPT_SECONDS,
    SlurmJob,
    find_old_jobs,
    job_script,
    refuse_fleet,
)
from modelserver.cli.slurm_steps import step
from modelserver.errors import ConfigurationError
from modelserver.settings import Settings, load
from tests.support.processes import eventually

NOW = 1_800_000_000.0


def settings(folder: Path, text: str = '[redis]\nurl = "redis://h"\n') -> Settings:
    (folder / "fleet.toml").write_text(text)
    return load({"MODELSERVER_HOME": str(folder / "my home")}, folder)


def test_the_job_itself_is_warned_and_nothing_that_it_starts(tmp_path: Path):
    script = job_script(SlurmJob("2:00:00", 300, gpus=4), settings(tmp_path))
    assert "#SBATCH --signal=B:USR1@300" in script
    assert "#SBATCH --gpus-per-node=4" in script
    last = shlex.split(script.splitlines()[-1])
    assert last[0] == "exec"
    assert last[-2:] == ["slurm-job", "--warning-seconds=300"]


def test_a_job_of_several_nodes_outlives_one_of_them(tmp_path: Path):
    script = job_script(SlurmJob("60", 60, nodes=3), settings(tmp_path))
    assert "#SBATCH --nodes=3\n#SBATCH --no-kill\n" in script
    assert "--no-kill" not in job_script(SlurmJob("60", 60), settings(tmp_path))
    argv = step("n2", ["host"])
    assert {"--nodelist=n2", "--nodes=1", "--no-kill"} < {*argv}


class StepsOfTwoNodes:
    """Steps whose ``srun`` runs a program of this machine in its place."""

    def __init__(self, folder: Path, program: str, on_said: str = "None") -> None:
        srun = folder / "srun"
        srun.write_text(f"#!/bin/bash\n{program}\n")
        srun.chmod(0o755)
        code = (
            "from modelserver.cli.slurm_steps import Steps; import os, signal\n"
            f"steps = Steps(['n1', 'n2'], [], os.environ, lambda said: {on_said})\n"
            "steps.run(); print(steps.told_by)"
        )
        known = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "MODELSERVER_HOME": str(folder / "home"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | known,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def test_each_step_is_warned_and_none_is_killed_by_its_srun(tmp_path: Path):
    """Of a SIGTERM Slurm itself tells the steps; srun would kill them for it."""
    up, warned = tmp_path / "up", tmp_path / "warned"
    told = f"echo $MODELSERVER_HOST $MODELSERVER_HOME >> {warned}"
    loop = "while :; do sleep 0.05; done"
    program = f"trap '{told}; exit' USR1\necho up >> {up}\n{loop}"
    steps = StepsOfTwoNodes(tmp_path, program)
    eventually(lambda: up.exists() and len(up.read_text().split()) == 2)
    steps.process.send_signal(signal.SIGTERM)
    steps.process.send_signal(signal.SIGUSR1)
    said, _ = steps.process.communicate(timeout=60)
    assert {signal.SIGTERM, signal.SIGUSR1} == {*json.loads(said)}
    homes = {f"{each}-job7 {tmp_path}/home/{each}" for each in ("n1", "n2")}
    assert {*warned.read_text().splitlines()} == homes


def test_a_step_that_is_started_after_the_warning_is_warned_too(tmp_path: Path):
    warning = "'n1 is started' in said and signal.raise_signal(signal.SIGUSR1)"
    steps = StepsOfTwoNodes(tmp_path, "while :; do sleep 0.05; done", warning)
    try:
        said, _ = steps.process.communicate(timeout=15)
    finally:
        steps.process.kill()
    assert json.loads(said) == [signal.SIGUSR1]


def test_a_job_without_a_host_has_failed(tmp_path: Path):
    steps = StepsOfTwoNodes(tmp_path, "exit 3")
    _, said = steps.process.communicate(timeout=60)
    assert steps.process.returncode
    assert "no node of this job is a host" in said


def test_options_that_are_several_words_stay_what_they_are(tmp_path: Path):
    given = ("--comment=two words", "--partition", "gpu")
    script = job_script(SlurmJob("60", 60, options=given), settings(tmp_path))
    (line,) = [each for each in script.splitlines() if "two words" in each]
    assert shlex.split(line) == ["#SBATCH", *given]


def test_jobs_of_one_machine_are_hosts_of_their_own(tmp_path: Path):
    script = job_script(SlurmJob("60", 60), settings(tmp_path))
    shown = script.replace(script.splitlines()[-1], "env")
    told = {}
    for job in ("7", "8"):
        done = subprocess.run(
            ["bash", "-c", shown],
            env=os.environ | {"SLURM_JOB_ID": job, "SLURMD_NODENAME": "n3"},
            capture_output=True,
            text=True,
            check=True,
        )
        told[job] = dict(x.split("=", 1) for x in done.stdout.splitlines() if "=" in x)
    assert {each["MODELSERVER_HOST"] for each in told.values()} == {
        "n3-job7",
        "n3-job8",
    }
    assert told["7"]["MODELSERVER_HOME"] == str(tmp_path / "my home/jobs/7")
    assert told["7"]["MODELSERVER_ENGINES_HOME"] == str(tmp_path / "my home")


def test_a_fleet_that_jobs_cannot_serve_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="embedded"):
        refuse_fleet(settings(tmp_path, ""))
    named = '[redis]\nurl = "redis://h"\n[[hosts]]\nname = "h1"\n'
    with pytest.raises(ConfigurationError, match="hosts"):
        refuse_fleet(settings(tmp_path, named))


def test_folders_of_jobs_are_collected_a_week_after_their_last_word(tmp_path: Path):
    jobs = tmp_path / "jobs"
    for name, age in (("1", KEPT_SECONDS + 1), ("2", 60.0), ("notes", 1e7)):
        (jobs / name).mkdir(parents=True)
        (jobs / name / "log").symlink_to("nowhere")
        for path in (jobs / name / "log", jobs / name):
            os.utime(path, (NOW - age, NOW - age), follow_symlinks=False)
    assert [folder.name for folder in find_old_jobs(jobs, NOW)] == ["1"]
    assert list(find_old_jobs(tmp_path, NOW)) == []
