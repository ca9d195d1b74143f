"""Whether a part of the fleet does its work on this host, for probes and watchdogs."""

from modelserver.operations.host_checks import check_beat
from modelserver.settings import Settings
from modelserver.store.fleet.control import read_steered
from modelserver.store.fleet.hosts import read_host
from modelserver.store.fleet.workers import read_worker_hosts
from modelserver.store.runs.hosted import read_holders
from modelserver.store.server.state import Store


def find_fault(store: Store, settings: Settings, part: str) -> str:
    """Why a part does not work, "" where it does."""
    host = settings.host
    match part:
        case "launcher":
            well = read_host(store, host) is not None
            fault = f"no launcher reports as host {host}"
        case "worker":
            well = host in read_worker_hosts(store)
            fault = f"no worker holds a lease on host {host}"
        case "beat":
            looked_at, _ = read_steered(store)
            steer_seconds = settings.fleet.rules.steer_seconds
            check = check_beat(store.now(), looked_at, steer_seconds)
            well, fault = not check.is_problem, f"{check.fact}; {check.remedy}"
        case "batches":
            well = any(each.host == host for each in read_holders(store))
            fault = f"nothing on host {host} carries out submitted runs"
        case _:
            raise ValueError(f"{part} is no part that reports")
    return "" if well else fault
