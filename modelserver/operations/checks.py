"""What stands in the way of a fleet, and the remedy of each: behind ``doctor``.

Checks look at this host and at the store. What only the launcher knows is asked of its
programs, which the caller runs.
"""

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from modelserver.control.applied_fleet import read_unchecked
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.fleet.engine_versions import find_model_version_problem
from modelserver.inventory import GIB
from modelserver.joined import is_joined
from modelserver.operations.check import Check
from modelserver.operations.host_checks import (
    check_engines,
    check_exposed,
    check_hosts,
    check_limits,
)
from modelserver.operations.hosted_runs import START_BATCHES, RunsStatus
from modelserver.operations.kept_responses import check_kept, folder_of
from modelserver.operations.server_checks import (
    check_kind,
    check_rights,
    check_server,
    trouble,
)
from modelserver.operations.status import ModelStatus, Status, read_status
from modelserver.settings import FLEET_FILE, Settings
from modelserver.store import Store, connect
from modelserver.store.server.state import connect_to
from modelserver.store.server.trouble import describe
from modelserver.values import ModelSpec

#: An engine's interpreter that takes longer than this to start is broken, in seconds.
ENVIRONMENT_START_SECONDS = 30.0
#: Seconds that Redis may take for an answer.
ANSWER_SECONDS = 5.0
#: Runs a program of the launcher's and returns the JSON object that it prints.
Ask = Callable[..., Mapping[str, Any]]


def examine(settings: Settings, ask: Ask | None) -> Iterator[Check]:
    """Every check, as it is done; without ``ask`` nothing that runs engines."""
    yield _python()
    yield _fleet_file(settings)
    yield check_run_dir(settings.run_dir)
    yield check_limits()
    most_bytes = settings.fleet.gateway.responses_gib * GIB
    yield check_kept(folder_of(settings.files_dir), most_bytes)
    status: Status | None = None
    try:
        # A server that is silent is told of within seconds.
        store = connect(settings, timeout=ANSWER_SECONDS, retries=0)
        yield from check_server(store)
        # Who runs nothing here needs no key.
        is_note = not settings.fleet_file.is_file()
        yield replace(check_fleet_key(store, settings), is_note=is_note)
        status = read_status(store, settings)
        if is_joined(settings.fleet_file):
            settings = _in_force(store, settings)
        yield from _fleet_checks(status, settings)
    except StoreUnreachableError as error:
        yield trouble("redis", error)
    except redis.RedisError as error:
        told = describe(error, settings.redis_url)
        yield trouble("redis", StoreUnreachableError(told))
    yield from _results(settings)
    if ask is None:
        yield Check("engines", "only modelserver[host] runs any here")
    elif settings.fleet_file.is_file() and _runs_engines(settings):
        yield from _environments(settings, ask)
        for pid, fact in ask("launcher.host.unowned").items():
            remedy = f"start the launcher of that fleet, or end it: kill {pid}"
            yield Check(f"pid {pid}", f"an engine without a launcher: {fact}", remedy)
        for engine, where in ask("launcher.host.exposed").items():
            yield check_exposed(engine, where, status)
        yield from check_ports(settings, status)


def _python() -> Check:
    found = platform.python_version()
    return Check("python", found)


def _fleet_file(settings: Settings) -> Check:
    if is_joined(settings.fleet_file):
        fact = f"the one in Redis, which this host has joined as {settings.host}"
        return Check("fleet file", fact)
    if not settings.fleet_file.is_file():
        if not settings.embedded:
            return Check("fleet file", "none; what is in force stands in Redis")
        remedy = f"go to the folder of your {FLEET_FILE}, or set MODELSERVER_FLEET"
        return Check("fleet file", f"{settings.fleet_file} does not exist", remedy)
    names = ", ".join(model.name for model in settings.fleet.models)
    remedy = "" if names else "add [[models]] to it"
    fact = f"{settings.fleet_file} (models: {names or 'none'})"
    return Check("fleet file", fact, remedy)


def check_run_dir(folder: Path) -> Check:
    """Whether logs and data can be written."""
    present = next(p for p in (folder, *folder.parents) if p.exists())
    if present.is_dir() and os.access(present, os.W_OK | os.X_OK):
        return Check("run folder", str(folder))
    remedy = f"allow writing to {present}, or set MODELSERVER_HOME to another folder"
    return Check("run folder", f"{present} cannot be written to", remedy)


def check_fleet_key(store: Store, settings: Settings) -> Check:
    """Whether a stranger who can write to Redis could run programs here."""
    what, key = "fleet key", settings.fleet_key
    try:
        applied, refused = read_unchecked(store, settings)
        keyless = not key.read()
    except ConfigurationError as error:
        fact, _, remedy = str(error).partition("; ")
        return Check(what, fact, remedy)
    if refused:
        fact, _, remedy = refused.partition("; ")
        return Check(what, fact, remedy)
    if keyless:
        fact = "none: whoever can write to Redis can run programs on this host"
        return Check(what, fact, "run: modelserver apply, which makes one or says how")
    signed = f"version {applied.version} is signed with it" if applied else "no fleet"
    return Check(what, f"{key.source}; {signed}")


def _in_force(store: Store, settings: Settings) -> Settings:
    """The fleet that this host obeys; one that it does not is told of by its key."""
    try:
        applied, _ = read_unchecked(store, settings)
    except ConfigurationError:  # So is one that it cannot read.
        return settings
    return replace(settings, fleet=applied.fleet) if applied else settings


def _results(settings: Settings) -> Iterator[Check]:
    """The server of results, where it is another."""
    if settings.fleet.redis.results_url:
        try:
            prefix = settings.fleet.redis.prefix
            store = connect_to(settings.results_url, prefix, ANSWER_SECONDS, retries=0)
            with store.reachable():
                found = store.server()
            yield check_kind(found, store.url, "results")
            yield from check_rights(store)
        except StoreUnreachableError as error:
            yield trouble("results", error)


def _fleet_checks(status: Status, settings: Settings) -> Iterator[Check]:
    yield from check_hosts(status, settings.fleet.rules.steer_seconds)
    yield from _gpus(status, settings)
    yield from check_models(status.models)
    yield _batches(status.runs)
    yield from check_engines(status)


def _gpus(status: Status, settings: Settings) -> Iterator[Check]:
    """GPUs that nothing can be started on."""
    needed = any(model.gpus for model in settings.fleet.specs())
    gpus = [(host.name, gpu) for host in status.hosts for gpu in host.gpus]
    if needed and status.hosts and not gpus:
        told = ", ".join(f"{host.name}: {host.driver}" for host in status.hosts)
        remedy = (
            "install NVIDIA's driver on the hosts with its GPUs; others are not "
            "supported, but an engine of type command may use any without gpus"
        )
        yield Check("GPUs", f"no host has any ({told})", remedy)
    for each in status.hosts:
        if needed and gpus and not each.gpus:
            yield Check(f"GPUs of {each.name}", each.driver)
    for host, gpu in gpus:
        if gpu.left_out:
            fact, _, remedy = gpu.left_out.partition("; ")
            yield Check(f"{gpu.label} of {host}", f"left out: {fact}", remedy)
        if gpu.fault:
            fact, _, remedy = gpu.fault.partition("; ")
            remedy = remedy or "look at `nvidia-smi -q` of that host"
            yield Check(f"{gpu.label} of {host}", fact, remedy)
        for note in gpu.notes:
            remedy = "look at `nvidia-smi -q` of that host"
            yield Check(f"{gpu.label} of {host}", note, remedy)


def check_models(models: Iterable[ModelStatus]) -> Iterator[Check]:
    """Models without a place for all of their engines, and those that are down."""
    for model in models:
        if model.waiting_for:
            yield check_waiting(model)
        elif model.standing == "down":
            remedy = f"run: modelserver why {model.name}"
            yield Check(f"model {model.name}", f"is down: {model.because}", remedy)


def check_waiting(model: ModelStatus) -> Check:
    """A model without a place for all of its engines."""
    remedy = "free GPUs, add a host, or ask for less in the fleet file"
    if hosts := ", ".join(model.absent_hosts):
        remedy = (
            f"start the launcher of {hosts}, or wait: its engines get other places then"
        )
    return Check(f"model {model.name}", f"waits: {model.waiting_for}", remedy)


def _batches(runs: RunsStatus) -> Check:
    """Only where runs wait is it needed."""
    fact = ", ".join(runs.processes) or "no process runs"
    if runs.waiting:
        fact += f"; {runs.told_waiting}"
    return Check("batches", fact, START_BATCHES * runs.is_stuck)


def _runs_engines(settings: Settings) -> bool:
    hosts = {host.name for host in settings.fleet.hosts}
    return not hosts or settings.host in hosts


def _environments(settings: Settings, ask: Ask) -> Iterator[Check]:
    home = ("--home", str(settings.engines_home))
    present = ask("launcher.environments", *home, "list", "--json")
    specs = settings.fleet.specs()
    models = [model for model in specs if not model.image]
    needed = {m.environment_name: m.engine for m in models if not m.interpreter}
    for model in models:
        if problem := find_model_version_problem(model):
            fact, _, remedy = problem.partition("; ")
            yield Check(f"model {model.name}", fact, remedy)
            needed.pop(model.environment_name, None)
    for name, engine in sorted(needed.items()):
        if engine in present:
            yield _environment(name, present.get(name))
    for model in models:
        yield from _program(model)
    if images := sorted({model.image for model in specs if model.image}):
        for image, fault in ask("launcher.host.containers", *images).items():
            fact, _, remedy = fault.partition("; ")
            yield Check(f"image {image}", fact or "is on this host", remedy)


def _environment(name: str, found: Mapping[str, Any] | None) -> Check:
    what, remedy = f"engine {name}", f"run: modelserver engines install {name}"
    if found is None:
        return Check(what, "is not installed on this host", remedy)
    python = Path(found["path"]) / "bin" / "python"
    if not _starts([str(python), "-c", ""]):
        again = f"run: modelserver engines remove {name}, then install it again"
        return Check(what, f"{python} does not start", again)
    return Check(what, f"{found['version']} in {found['path']}")


def _starts(argv: list[str]) -> bool:
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=ENVIRONMENT_START_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _program(model: ModelSpec) -> Iterable[Check]:
    """A program that the fleet file names itself must be there."""
    for key, program in (
        ("interpreter", model.interpreter),
        ("command", next(iter(model.command), "")),
    ):
        if program and not shutil.which(program):
            remedy = f"correct {key} of this model in the fleet file, or install it"
            yield Check(f"model {model.name}", f"{program} is no program", remedy)


def check_ports(settings: Settings, status: Status | None) -> Iterator[Check]:
    """Ports that the fleet file pins on this host, unless our own engine has them."""
    ours = {
        engine.url.rpartition(":")[2]
        for engine in (status.engines if status else ())
        if engine.host == settings.host
    }
    for pin in settings.fleet.pins():
        if not pin.port or pin.url or pin.host not in ("", settings.host):
            continue
        if str(pin.port) in ours or _is_free(pin.port):
            yield Check(f"port {pin.port}", f"free for {pin.id}, or its own")
        else:
            remedy = "end the program that has it, or pin another port"
            yield Check(f"port {pin.port}", f"taken, but meant for {pin.id}", remedy)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT can be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
