"""What all engines of a host share: folders, and the owners of effects."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from launcher.host.allocation import Allocation
from launcher.host.containers import Containers
from launcher.host.gpu_faults import GpuFaults
from launcher.host.incidents import Incidents
from launcher.host.listeners import Listeners
from launcher.host.load_turns import LoadTurns
from launcher.host.needed_files import NeededFiles
from launcher.host.records import Records
from launcher.host.secrets import Secrets
from launcher.host.survivors import Survivors
from launcher.host.troubles import HostTroubles
from launcher.store_link import StoreLink
from modelserver.keyring import Keyring


@dataclass(frozen=True, slots=True)
class HostResources:
    """The host's folders and the owners of its effects."""

    #: The folder of environments and models.
    home: Path
    #: The folder of the engines' logs.
    logs: Path
    #: The host's name.
    host: str
    records: Records
    allocation: Allocation
    session: aiohttp.ClientSession
    keys: Keyring
    link: StoreLink
    incidents: Incidents
    secrets: Secrets
    containers: Containers
    gpu_faults: GpuFaults
    turns: LoadTurns
    files: NeededFiles
    listeners: Listeners
    troubles: HostTroubles
    survivors: Survivors
    #: Gives the address of each host of the fleet in force, "" where it has none.
    addresses: Callable[[], Mapping[str, str]]
    #: Held by the engine that writes what several may need.
    preparing: asyncio.Lock
    #: Makes the loop's next tick come now.
    woken: asyncio.Event

    def log_of(self, engine: str) -> Path:
        """The file of an engine's output."""
        return self.logs / f"{engine.replace('/', '_')}.log"

    def wake(self) -> None:
        """Have the next tick now."""
        self.woken.set()
