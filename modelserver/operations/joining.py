"""What stands in the way of a host that is to be one of a fleet's: behind ``join``."""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelserver.control.applied_fleet import Applied, read_unchecked
from modelserver.inventory import GIB, Host, gib
from modelserver.operations.check import Check
from modelserver.operations.checks import (
    Ask,
    check_fleet_key,
    check_ports,
    check_run_dir,
)
from modelserver.operations.host_checks import check_limits
from modelserver.operations.server_checks import check_server
from modelserver.operations.status import read_status
from modelserver.policy.troubles import clock_fault
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.values import ModelSpec

#: What stays free on the disk beside the environments that are installed.
MARGIN_BYTES = GIB


def examine_host(
    settings: Settings, store: Store, ask: Ask, is_joined: bool
) -> Iterator[Check]:
    """Every check of this host, as it is done; ``is_joined`` where it runs already."""
    yield from check_server(store)
    yield check_clock(settings.host, time.time() - store.now())
    yield check_fleet_key(store, settings)
    applied, _ = read_unchecked(store, settings)
    if applied is None:
        fact = "none is in force, so there is nothing to run here"
        remedy = "run `modelserver apply` where the fleet file is, then join again"
        yield Check("fleet", fact, remedy)
        return
    status = read_status(store, settings)
    yield check_name(settings.host, applied, status.hosts, is_joined)
    yield check_run_dir(settings.run_dir)
    yield check_limits()
    models = find_models(applied, settings.host)
    yield check_gpus(models, ask("launcher.host.gpu_list"))
    missing = find_missing_engines(models, settings, ask)
    if missing:
        home = settings.engines_home
        needs = ask("launcher.environments", "--home", str(home), "needs", *missing)
        yield check_room(home, sum(needs.values()))
    yield from check_ports(settings, status)


def check_clock(host: str, ahead_seconds: float) -> Check:
    """Whether this clock and that of Redis agree."""
    fault = clock_fault(Host(host, clock_ahead_seconds=ahead_seconds))
    remedy = "have it set: timedatectl set-ntp true, or chronyd" * bool(fault)
    return Check("clock", fault or "that of Redis", remedy)


def check_name(
    name: str, applied: Applied, hosts: Iterable[Host], is_joined: bool
) -> Check:
    """Whether the fleet can have a host of this name."""
    twin = next((host for host in hosts if host.name == name), None)
    if twin and not is_joined:
        fact = f"a launcher reports as {name} already (pid {twin.pid} of its machine)"
        remedy = "if that is another machine, give this one a name with --name"
        return Check("host", fact, f"{remedy}; if it is this one, it has joined")
    named = [host.name for host in applied.fleet.hosts]
    if named and name not in named:
        fact = f"[[hosts]] of the fleet names {', '.join(named)}, and not {name}"
        return Check("host", fact, "add it to [[hosts]], and run `modelserver apply`")
    return Check("host", f"{name}, of fleet version {applied.version}")


def find_models(applied: Applied, host: str) -> list[ModelSpec]:
    """The models whose engines this host may run."""
    specs = applied.fleet.specs()
    return [each for each in specs if not each.hosts or host in each.hosts]


def check_gpus(models: list[ModelSpec], found: Mapping[str, Any]) -> Check:
    """Whether the models that may run here find what they run on."""
    gpus, without = found["gpus"], [each.name for each in models if not each.gpus]
    if gpus or without or not models:
        driver = found["driver"]
        told = f"{len(gpus)} ({', '.join(sorted(set(gpus)))})" if gpus else "none"
        return Check("GPUs", f"{told}, driver: {driver}" if driver else told)
    fact = f"none is seen ({found['driver']}), and every model here needs some"
    return Check("GPUs", fact, "install NVIDIA's driver on this host")


def find_missing_engines(
    models: list[ModelSpec], settings: Settings, ask: Ask
) -> list[str]:
    """The engine environments that these models need and this host has not."""
    home = ("--home", str(settings.engines_home))
    present = ask("launcher.environments", *home, "list", "--json")
    needed = {
        each.environment_name
        for each in models
        if each.engine in present and not each.image and not each.interpreter
    }
    return sorted(name for name in needed if not present.get(name))


def check_room(home: Path, engines_bytes: int) -> Check:
    """Whether the environments of engines find room on the disk."""
    folder = next(path for path in (home, *home.parents) if path.exists())
    free, needed = shutil.disk_usage(folder).free, engines_bytes + MARGIN_BYTES
    fact = f"{gib(free)} free at {folder}"
    if free >= needed:
        return Check("disk", fact)
    fact = f"{fact}, and engines that are to be installed need {gib(needed)}"
    return Check("disk", fact, "make room, or set MODELSERVER_ENGINES_HOME")
