"""What a job script asks of Slurm, and whose folders are collected."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from modelserver.cli.slurm import (
    KEPT_SECONDS,
    SlurmJob,
    find_old_jobs,
    job_script,
    refuse_fleet,
)
from modelserver.errors import ConfigurationError
from modelserver.settings import Settings, load

NOW = 1_800_000_000.0


def settings(folder: Path, text: str = '[redis]\nurl = "redis://h"\n') -> Settings:
    (folder / "fleet.toml").write_text(text)
    return load({"MODELSERVER_HOME": str(folder / "my home")}, folder)


def test_the_job_itself_is_warned_and_nothing_that_it_starts(tmp_path: Path):
    script = job_script(SlurmJob("2:00:00", 300, gpus=4), settings(tmp_path))
    assert "#SBATCH --signal=B:USR1@300" in script
    assert "#SBATCH --gpus=4" in script
    last = shlex.split(script.splitlines()[-1])
    assert last[0] == "exec"
    assert last[-2:] == ["slurm-job", "--warning-seconds=300"]


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
            env=os.environ | {"SLURM_JOB_ID": job},
            capture_output=True,
            text=True,
            check=True,
        )
        told[job] = dict(x.split("=", 1) for x in done.stdout.splitlines() if "=" in x)
    for name in ("MODELSERVER_HOST", "MODELSERVER_HOME"):
        assert told["7"][name] != told["8"][name]
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
