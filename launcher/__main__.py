"""``python -m launcher``: run this host's engines until a signal ends it."""

import asyncio
import logging
import os
import sys

from launcher.claim import Claim, await_lease
from launcher.gpus import inventory
from launcher.link import Link
from launcher.places import Places
from launcher.records import Records
from launcher.supervisor import Supervisor
from launcher.tools import Tools
from modelserver.client import open_session
from modelserver.errors import ModelserverError
from modelserver.inventory import Host
from modelserver.settings import Settings, load
from modelserver.store.state import Store, connect

_log = logging.getLogger(__name__)

#: Name of the file in the run folder that a launcher holds locked.
LOCK_FILE = "launcher.lock"


def main() -> None:
    """Claim this host, then supervise; a problem is one line and exit status 2."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO
    )
    try:
        settings = load()
        store = connect(settings)
        claim = Claim.take(settings.run_dir / LOCK_FILE)
        lease_seconds = settings.fleet.rules.lease_seconds
        await_lease(store, settings.host, claim, lease_seconds)
        asyncio.run(_serve(settings, store))
    except ModelserverError as error:
        print(f"launcher: {error}", file=sys.stderr)
        sys.exit(2)
    claim.release()


async def _serve(settings: Settings, store: Store) -> None:
    gpus = await asyncio.to_thread(inventory)
    host = Host(settings.host, gpus, os.getpid())
    link = Link(store, host, settings.fleet.rules.lease_seconds)
    try:
        async with open_session() as session:
            tools = Tools(
                home=settings.home,
                logs=settings.run_dir / "logs",
                host=settings.host,
                records=Records(settings.run_dir / "engines"),
                places=Places(),
                session=session,
                link=link,
                preparing=asyncio.Lock(),
                woken=asyncio.Event(),
            )
            _log.info("host=%s gpus=%d launcher up", settings.host, len(gpus))
            await Supervisor(settings.fleet, tools).run()
            _log.info("host=%s launcher down", settings.host)
    finally:
        link.close()


if __name__ == "__main__":
    main()
