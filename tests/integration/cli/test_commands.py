"""The command line as processes, beside a real server and real engines."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelserver.control.applied_fleet import compose, publish
from modelserver.fleet.file import Fleet
from modelserver.fleet.sections import ModelSection
from modelserver.inventory import Host
from modelserver.operations.probe import fastest
from modelserver.settings import Settings, load
from modelserver.store import Store, connect
from modelserver.store.fleet.control import (
    hold_control,
    read_steered,
    report_waiting,
    write_wishes,
)
from modelserver.store.fleet.engines import report_engine
from modelserver.store.fleet.hosts import report_host
from modelserver.store.fleet.workers import read_workers
from modelserver.values import EngineReport, EngineSpec, EngineState, Wish
from tests.engine.process import EngineProcess
from tests.support.processes import ROOT, ValkeyProcess, eventually, gpus

CLI = [sys.executable, "-m", "modelserver.cli"]
FLEET = """
[[models]]
name = "fast"
engine = "external"

[[models]]
name = "vectors"
kind = "embedding"
engine = "external"

[[models]]
name = "waits"
path = "/m"
engine = "sglang-cpu"

[redis]
url = "{url}"
prefix = "cli:"

[probe]
max_tokens = 4
"""


@pytest.fixture
def folder(valkey: ValkeyProcess, tmp_path: Path) -> Path:
    """A user's folder with a fleet file, and with a trap for Celery."""
    (tmp_path / "fleet.toml").write_text(FLEET.format(url=valkey.url))
    (tmp_path / "tasks.py").write_text("raise RuntimeError('the wrong tasks')\n")
    return tmp_path


@pytest.fixture
def settings(folder: Path) -> Settings:
    return load({"MODELSERVER_HOME": str(folder / "home")}, cwd=folder)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = connect(settings)
    yield store
    store.client.close()


def environment(folder: Path, **extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MODELSERVER_")}
    home = {"MODELSERVER_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    return kept | home | extra


def run(
    folder: Path, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *arguments],
        cwd=folder,
        env=environment(folder, **extra),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def report(store: Store, engine: str, model: str, url: str) -> None:
    """Have host a report a ready engine, as a launcher does."""
    report_engine(
        store,
        EngineReport(engine, model, "a", EngineState.READY, 1, url, limit=8, since=1.0),
    )
    report_host(store, Host("a", gpus=gpus(2), pid=7), lease_seconds=60)


def work(store: Store, loads: dict[str, list[float]]) -> None:
    """Have a worker on host a renew its lease, as workers do."""
    report = {"node": "w@a", "host": "a", "pid": 8, "held": 4, "loads": loads}
    store.client.sadd(store.keys.workers, "w@a/1")
    store.client.set(store.keys.worker("w@a/1"), json.dumps(report), ex=60)


def test_status_shows_the_fleet_as_json(folder: Path, store: Store):
    report(store, "fast-0", "fast", "http://127.0.0.1:1")
    spec = EngineSpec("waits-0", "waits", "b")
    with hold_control(store, "test", 60) as token:
        write_wishes(store, token, {"waits-0": Wish(spec)})
    report_waiting(store, {"waits-0": "needs 1 free GPU; host a has no GPUs"})
    store.client.lpush(store.keys.queue("waits")[0], "one", "two")
    store.client.lpush(store.keys.queue("waits")[2], "urgent")
    work(store, {"fast-0": [3, 1.5, 0.2]})

    done = run(folder, "status", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    models = {model["name"]: model for model in found["models"]}
    assert models["waits"] == {
        "name": "waits",
        "kind": "completion",
        "ready": 0,
        "wanted": 1,
        "schedule": "",
        "queue": {
            "name": "waits",
            "backlog": 3,
            "workers": 0,
            "submitters": {"": 3},
        },
        "waiting_for": "waits-0: needs 1 free GPU; host a has no GPUs",
        "absent_hosts": ["b"],
        "standing": "",
        "because": "",
        "cut_off": 0,
    }
    assert models["fast"]["ready"] == models["fast"]["queue"]["workers"] == 1
    assert [(w["name"], w["models"]) for w in found["workers"]] == [("w@a", ["fast"])]
    engines = {engine["id"]: engine for engine in found["engines"]}
    assert engines["fast-0"]["state"] == "READY"
    assert engines["fast-0"]["inflight"] == 3
    assert engines["fast-0"]["traffic"]["p50_seconds"] is None
    assert engines["waits-0"]["state"] == "PENDING"
    assert engines["waits-0"]["reason"] == "the launcher of host b does not run"
    (host,) = found["hosts"]
    assert (host["name"], host["pid"]) == ("a", 7)
    assert [gpu["uuid"] for gpu in host["gpus"]] == ["GPU-0", "GPU-1"]
    assert found["steered_at"] == 0


def test_status_and_models_show_tables(folder: Path, store: Store):
    report(store, "fast-0", "fast", "http://127.0.0.1:1")
    done = run(folder, "status")
    assert done.returncode == 0
    for word in ("fast-0", "READY", "0/8", "p95", "no ready engine", "is beat running"):
        assert word in done.stdout
    done = run(folder, "models")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == [
        "fast",
        "vectors",
        "waits",
    ]


def test_latency_probes_every_ready_engine(folder: Path, store: Store):
    with EngineProcess() as engine:
        report(store, "fast-0", "fast", engine.url)
        report(store, "vectors-0", "vectors", engine.url)
        report(store, "waits-0", "waits", "http://127.0.0.1:1")
        done = run(folder, "latency", "--json")
        table = run(folder, "latency", "vectors")
    assert done.stderr == ""
    probes = {probe["engine"]: probe for probe in json.loads(done.stdout)}
    assert probes["fast-0"]["error"] == ""
    assert probes["fast-0"]["answer"]
    assert "dimensions" in probes["vectors-0"]["answer"]
    assert "Cannot connect" in probes["waits-0"]["error"]
    assert "dimensions" in table.stdout
    assert "fast-0" not in table.stdout


def test_fastest_names_the_winner_and_waits_for_no_loser(folder: Path, store: Store):
    with EngineProcess("--latency", "30") as slow, EngineProcess() as quick:
        report(store, "fast-0", "fast", slow.url)
        report(store, "fast-1", "fast", quick.url)
        report(store, "fast-2", "fast", "http://127.0.0.1:1")
        done = run(folder, "fastest", "fast", "--json")
        eventually(lambda: slow.stats()["aborted"] == 1)
    winner = json.loads(done.stdout)
    assert (winner["engine"], winner["url"]) == ("fast-1", quick.url)


def test_fastest_says_why_there_is_none(folder: Path, store: Store):
    done = run(folder, "fastest", "waits")
    assert done.returncode == 1
    assert done.stderr.startswith('modelserver: model "waits" has no ready engine')
    report(store, "waits-0", "waits", "http://127.0.0.1:1")
    done = run(folder, "fastest", "waits")
    assert 'no engine of "waits" answered its probe: waits-0' in done.stderr


def test_an_unknown_model_is_one_clear_line(folder: Path):
    done = run(folder, "fastest", "fastt")
    assert done.returncode == 1
    assert done.stderr == (
        'modelserver: the fleet has no model "fastt"; models: fast, vectors, waits\n'
    )


def test_a_server_that_does_not_answer_is_one_clear_line(folder: Path):
    done = run(folder, "status", MODELSERVER_REDIS_URL="redis://127.0.0.1:1/0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Redis at redis://127.0.0.1:1/0 does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_fleet_file_exits_with_2(folder: Path):
    (folder / "fleet.toml").write_text("[[models]]\nnam = 1\n")
    done = run(folder, "status")
    assert done.returncode == 2
    assert 'did you mean "name"?' in done.stderr


def test_a_program_without_a_fleet_file_says_where_it_looked(folder: Path):
    (folder / "fleet.toml").unlink()
    done = run(folder, "worker")
    assert done.returncode == 2
    assert f"there is no fleet file {folder / 'fleet.toml'}" in done.stderr


def test_a_client_without_a_fleet_file_learns_the_models_from_the_store(
    folder: Path, store: Store, valkey: ValkeyProcess
):
    (folder / "fleet.toml").unlink()
    far = Fleet(models=(ModelSection(name="far", engine="external"),))
    assert publish(store, compose(far, None, store.now()), None)
    done = run(
        folder,
        "models",
        "--json",
        MODELSERVER_REDIS_URL=valkey.url,
        MODELSERVER_REDIS_PREFIX=store.keys.prefix,
    )
    assert [model["name"] for model in json.loads(done.stdout)] == ["far"]


@pytest.mark.parametrize(
    ("program", "argument", "answer"),
    [
        ("worker", "--no-such", "--no-such"),
        ("beat", "--no-such", "--no-such"),
        ("flower", "--port=none", "invalid literal for int() with base 10: none"),
    ],
)
def test_celery_starts_beside_a_tasks_file_of_the_user(
    folder: Path, program: str, argument: str, answer: str
):
    """Celery has loaded its app by the time that it refuses the argument."""
    done = run(folder, program, argument)
    assert done.returncode != 0
    assert answer in done.stderr.replace("'", "")
    assert "the wrong tasks" not in done.stderr


def test_worker_and_beat_steer_the_fleet(
    folder: Path, settings: Settings, store: Store
):
    programs = [
        subprocess.Popen(
            [*CLI, program],
            cwd=folder,
            env=environment(folder),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for program in ("worker", "beat")
    ]
    try:
        eventually(lambda: read_workers(store) and read_steered(store)[0])
        done = run(folder, "doctor")
    finally:
        for program in programs:
            program.kill()
            program.wait()
    assert "ok      beat: control looked at the fleet" in done.stdout
    assert "ok      workers: " in done.stdout
    assert list(settings.run_dir.glob("celerybeat-schedule*"))


def test_engines_list_shows_what_can_be_installed(folder: Path):
    done = run(folder, "engines", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sglang-cpu" in done.stdout
    assert run(folder, "engines", "list", "--json").stdout.startswith("{")


def test_an_unknown_engine_names_the_known_ones(folder: Path):
    done = run(folder, "engines", "install", "sglan")
    assert done.returncode == 2
    assert "unknown engine 'sglan'" in done.stderr
    assert "sglang-cpu" in done.stderr


def test_doctor_names_each_problem_and_its_remedy(folder: Path):
    done = run(folder, "doctor")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok      python: 3.") for line in lines)
    assert any(line.startswith("ok      redis: valkey ") for line in lines)
    assert "problem launchers: none reports" in lines
    assert "problem engine sglang-cpu: is not installed on this host" in lines
    assert "        -> run: modelserver engines install sglang-cpu" in lines
    assert "Traceback" not in done.stderr


def test_doctor_names_a_version_that_no_launcher_runs(folder: Path):
    path = folder / "old.toml"
    path.write_text(
        '[[models]]\nname = "m"\npath = "x/y"\ngpus = 1\nengine = "vllm"\n'
        'engine_version = "0.9"\n'
    )
    said = run(folder, "doctor", MODELSERVER_FLEET=str(path)).stdout
    assert "problem model m: engine vllm 0.9 is older than 0.10.0" in said
    assert "engine vllm==0.9: is not installed" not in said


def test_doctor_looks_for_images_where_models_name_them(folder: Path):
    path = folder / "images.toml"
    path.write_text(
        '[[models]]\nname = "m"\npath = "x/y"\ngpus = 1\ninterpreter = "/in/image"\n'
        'image = "lmsysorg/sglang:v0.5.23"\n'
    )
    program = {"MODELSERVER_CONTAINER_PROGRAM": "/no/such/podman"}
    done = run(folder, "doctor", MODELSERVER_FLEET=str(path), **program)
    lines = done.stdout.splitlines()
    where = lines.index(
        "problem image lmsysorg/sglang:v0.5.23: no containers on this host: "
        "/no/such/podman is not installed"
    )
    assert "MODELSERVER_CONTAINER_PROGRAM" in lines[where + 1]
    # What is in the image is not asked of this host.
    assert "/in/image" not in done.stdout
    assert "engine sglang" not in done.stdout


def test_doctor_names_faulty_gpus_and_what_waits_for_room(folder: Path, store: Store):
    lost = replace(gpus(2)[1], fault="GPU is lost; reset it, or restart the host")
    report_host(store, Host("a", gpus=(gpus(1)[0], lost), pid=7), lease_seconds=60)
    report_waiting(store, {"waits-0": "needs 2 free GPUs; host a: 1 of 2 GPUs fits"})
    done = run(folder, "doctor")
    assert "problem gpu 1 of a: GPU is lost\n        -> reset it" in done.stdout
    assert (
        "problem model waits: waits: waits-0: needs 2 free GPUs; host a: 1 of 2 GPUs "
        "fits\n        -> free GPUs, add a host, or ask for less in the fleet file"
    ) in done.stdout


def test_doctor_finds_a_port_that_something_else_has(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        pin = f'[[engines]]\nmodel = "waits"\nhost = "h"\nport = {port}\n'
        with (folder / "fleet.toml").open("a") as file:
            file.write(pin)
        done = run(folder, "doctor", MODELSERVER_HOST="h")
    assert f"problem port {port}: taken, but meant for waits-0" in done.stdout


def test_doctor_goes_on_where_there_is_no_server(folder: Path):
    done = run(folder, "doctor", MODELSERVER_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert (
        "problem redis: Redis at redis://127.0.0.1:1/0 does not answer" in done.stdout
    )
    assert "engine sglang-cpu" in done.stdout


def test_a_loser_is_cancelled_the_moment_a_winner_is_known(
    settings: Settings, store: Store
):
    with EngineProcess("--latency", "30") as slow, EngineProcess() as quick:
        report(store, "fast-0", "fast", slow.url)
        report(store, "fast-1", "fast", quick.url)
        winner = asyncio.run(fastest(store, settings, "fast", seconds=20))
        eventually(lambda: slow.stats()["aborted"] == 1)
    assert winner.engine == "fast-1"
    assert winner.error == ""
    assert 0 < winner.seconds < 20
