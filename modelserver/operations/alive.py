"""Whether a part of the fleet does its work on this host, for probes and watchdogs."""

from modelserver.settings import Settings
from modelserver.store.fleet.control import read_steered
from modelserver.store.fleet.hosts import read_host
from modelserver.store.fleet.workers import read_worker_hosts
from modelserver.store.runs.hosted import read_holders
from modelserver.store.server.state import Store

#: Control that has not looked for so many seconds has no beat, or no worker.
STEERED_SECONDS = 30.0


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
            silent = store.now() - read_steered(store)[0]
            well = silent < STEERED_SECONDS
            fault = f"control has not looked for {silent:.0f} s: no beat, or no worker"
        case "batches":
            well = any(each.host == host for each in read_holders(store))
            fault = f"nothing on host {host} carries out submitted runs"
        case _:
            raise ValueError(f"{part} is no part that reports")
    return "" if well else fault
