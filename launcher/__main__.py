"""``python -m launcher``: run this host's engines until a signal ends it."""

import asyncio
import logging
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from launcher.fleet_sync import FleetSync, warn_of_differences, warn_of_no_key
from launcher.host.allocation import Allocation
from launcher.host.containers import Containers
from launcher.host.disks import Disks
from launcher.host.gpu_faults import FAULTS_FILE, GpuFaults
from launcher.host.gpu_turns import GpuTurns
from launcher.host.gpus import GpuInventory
from launcher.host.host_watch import HostWatch
from launcher.host.incidents import Incidents
from launcher.host.listeners import Listeners
from launcher.host.load_turns import LoadTurns
from launcher.host.lock import HostLock, await_lease, lock_file
from launcher.host.logs import Logs
from launcher.host.needed_files import NeededFiles
from launcher.host.own_gpus import OwnGpus
from launcher.host.process import Identity
from launcher.host.process_owners import ProcessOwners
from launcher.host.records import Records
from launcher.host.resources import HostResources
from launcher.host.secrets import Secrets
from launcher.host.survivors import SURVIVORS_FILE, Survivors
from launcher.host.troubles import HostTroubles
from launcher.store_link import StoreLink
from launcher.supervisor import Supervisor
from modelserver.control.applied_fleet import Applied, provide, unknown
from modelserver.disk_errors import is_of_disk, with_remedy
from modelserver.engine_client import open_session
from modelserver.errors import (
    ConfigurationError,
    ModelserverError,
    StoreUnreachableError,
)
from modelserver.inventory import Host
from modelserver.logs import start_logging
from modelserver.settings import Settings, load
from modelserver.store.server.state import Store, connect, open_store

_log = logging.getLogger(__name__)


def main() -> None:
    """Lock this host and supervise it; a problem is one line and exit status 2."""
    try:
        settings = load()
        start_logging(settings.json_logs)
        lock = HostLock.acquire(lock_file(settings.run_dir))
        _note_run_dir(settings)
        store, applied = _reach_store(settings, lock)
        asyncio.run(_serve(settings, store, applied))
    except ModelserverError as error:
        print(f"launcher: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if not is_of_disk(error):
            raise
        print(f"launcher: {with_remedy(error)}", file=sys.stderr)
        sys.exit(2)
    lock.release()


def _note_run_dir(settings: Settings) -> None:
    """The same as of the settings; a disk that is full does not keep engines alone."""
    try:
        settings.note_run_dir()
    except OSError as error:
        if not is_of_disk(error):
            raise
        _log.warning("%s is not noted: %s", settings.run_dir, with_remedy(error))


def _reach_store(settings: Settings, lock: HostLock) -> tuple[Store, Applied]:
    """The store and the fleet in force, unknown where that cannot be had.

    Raises StoreUnreachableError, or ConfigurationError for a fleet that this host does
    not obey or cannot read, where no engines of it are to be watched meanwhile.
    """
    try:
        store = connect(settings)
        applied = provide(store, settings)
        warn_of_differences(applied, settings)
        warn_of_no_key(applied)
        seconds = applied.fleet.rules.lease_seconds
        await_lease(store, settings.host, lock, seconds)
    except (StoreUnreachableError, ConfigurationError) as error:
        if not _records(settings).read_all():
            raise
        _log.warning("%s; the engines of this host are watched meanwhile", error)
        redis = settings.fleet.redis
        return open_store(settings.redis_url, redis.prefix), unknown(redis)
    return store, applied


def _records(settings: Settings) -> Records:
    return Records(settings.run_dir / "engines")


async def _serve(settings: Settings, store: Store, applied: Applied) -> None:
    records = _records(settings)

    def started() -> list[tuple[str, Identity]]:
        return [(each.spec.id, each.process) for each in records.read_all()]

    host = Host(settings.host, pid=os.getpid())
    link = StoreLink(store, host, applied.fleet.rules.lease_seconds)
    fleet_sync = FleetSync(applied, settings, link)
    gpu_faults = GpuFaults(settings.run_dir / FAULTS_FILE)
    gpu_turns = GpuTurns(own_marks=lambda: [each.mark for _, each in started()])
    troubles = HostTroubles()
    survivors = Survivors(settings.run_dir / SURVIVORS_FILE, troubles, gpu_turns)

    def own_gpus() -> OwnGpus:
        kept = gpu_turns.find_kept() | survivors.find_kept()
        return OwnGpus.of(fleet_sync.applied.fleet, settings, kept)

    inventory = GpuInventory(ProcessOwners(started), own_gpus, gpu_faults)
    watch = HostWatch(host, inventory, troubles)
    watch.start()
    folders = settings.run_dir, settings.home, Path(tempfile.gettempdir())
    disks = Disks(folders, troubles)
    disks.start()
    logs = Logs(settings.run_dir / "logs", troubles=troubles)
    logs.start()

    def read_host() -> Host:
        survivors.look()
        return replace(watch.host(), disks=disks.now, troubles=troubles.now)

    link.read_host = read_host
    try:
        await asyncio.to_thread(watch.wait_for_first)
        keys = settings.keyring()
        async with open_session(keys=keys) as session:
            resources = HostResources(
                home=settings.engines_home,
                logs=settings.run_dir / "logs",
                host=settings.host,
                records=records,
                allocation=Allocation(settings.host, inventory.read, gpu_turns),
                session=session,
                keys=keys,
                link=link,
                incidents=Incidents(settings.run_dir, link),
                secrets=Secrets(settings.fleet, settings.fleet_file),
                containers=Containers(
                    settings.container_program, owner=str(settings.run_dir)
                ),
                gpu_faults=gpu_faults,
                turns=LoadTurns(),
                files=NeededFiles(settings.engines_home),
                listeners=Listeners(),
                troubles=troubles,
                survivors=survivors,
                addresses=lambda: fleet_sync.applied.fleet.addresses,
                preparing=asyncio.Lock(),
                woken=asyncio.Event(),
            )
            number = len(watch.host().gpus)
            _log.info("host=%s gpus=%d launcher up", settings.host, number)
            await Supervisor(fleet_sync, resources).run()
            _log.info("host=%s launcher down", settings.host)
    finally:
        watch.close()
        disks.close()
        logs.close()
        link.close()


if __name__ == "__main__":
    main()
