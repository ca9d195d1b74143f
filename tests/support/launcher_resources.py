"""What a launcher has of its host, for what is tested without one."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from launcher.host.allocation import Allocation
from launcher.host.containers import Containers
from launcher.host.gpu_faults import GpuFaults
from launcher.host.gpu_turns import GpuTurns
from launcher.host.incidents import Incidents
from launcher.host.listeners import Listeners
from launcher.host.load_turns import LoadTurns
from launcher.host.needed_files import NeededFiles
from launcher.host.records import Records
from launcher.host.resources import HostResources
from launcher.host.secrets import Secrets
from launcher.host.survivors import SURVIVORS_FILE, Survivors
from launcher.host.troubles import HostTroubles
from launcher.store_link import StoreLink
from modelserver.engine_client import open_session
from modelserver.fleet.file import Fleet
from modelserver.inventory import Host
from modelserver.keyring import Keyring
from modelserver.store.server.state import open_store
from tests.support.processes import gpus

#: Nobody listens there.
CLOSED = "redis://127.0.0.1:1/0"


@asynccontextmanager
async def open_resources(
    folder: Path, addresses: Mapping[str, str]
) -> AsyncIterator[HostResources]:
    """What a launcher of host "b" has, with one GPU and without a store."""
    keys, troubles, turns = Keyring(folder / "keys"), HostTroubles(), GpuTurns()
    link = StoreLink(open_store(CLOSED, "test:", retries=0), Host("b", pid=1), 1.0)
    async with open_session(keys=keys) as session:
        yield HostResources(
            home=folder,
            logs=folder / "logs",
            host="b",
            records=Records(folder / "engines"),
            allocation=Allocation("b", lambda: gpus(1), turns),
            session=session,
            keys=keys,
            link=link,
            incidents=Incidents(folder, link),
            secrets=Secrets(Fleet(), folder / "fleet.toml"),
            containers=Containers("", owner=str(folder)),
            gpu_faults=GpuFaults(),
            turns=LoadTurns(),
            files=NeededFiles(folder),
            listeners=Listeners(),
            troubles=troubles,
            survivors=Survivors(folder / SURVIVORS_FILE, troubles, turns),
            addresses=lambda: addresses,
            preparing=asyncio.Lock(),
            woken=asyncio.Event(),
        )
    link.close()
