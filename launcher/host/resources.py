"""What all engines of a host share."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from launcher.host.allocation import Allocation
from launcher.host.containers import Containers
from launcher.host.incidents import Incidents
from launcher.host.records import Records
from launcher.host.secrets import Secrets
from launcher.store_link import StoreLink
from modelserver.keyring import Keyring


@dataclass(frozen=True, slots=True)
class HostResources:
    """The host's folders and the owners of its effects.

    ``preparing`` lets one engine at a time write what several may need; ``woken`` set
    makes the loop's next tick come now.
    """

    home: Path
    logs: Path
    host: str
    records: Records
    allocation: Allocation
    session: aiohttp.ClientSession
    keys: Keyring
    link: StoreLink
    incidents: Incidents
    secrets: Secrets
    containers: Containers
    preparing: asyncio.Lock
    woken: asyncio.Event

    def log_of(self, engine: str) -> Path:
        """Where an engine's output goes."""
        return self.logs / f"{engine.replace('/', '_')}.log"

    def wake(self) -> None:
        """Have the next tick now."""
        self.woken.set()
