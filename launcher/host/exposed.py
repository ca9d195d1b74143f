"""Engines of this host that other hosts can reach, whatever their launcher told them.

``python -m launcher.host.exposed`` prints them as JSON: each one's id with where it
listens.
"""

import ipaddress
import json
from contextlib import suppress

import psutil

from launcher.host.process import Identity, survivors
from launcher.host.records import Records
from modelserver.settings import load


def find_exposed(records: Records) -> dict[str, str]:
    """Where engines listen beyond loopback, by engine."""
    found = {record.spec.id: _beyond(record.process) for record in records.read_all()}
    return {engine: where for engine, where in found.items() if where}


def _beyond(engine: Identity) -> str:
    places = set()
    for process in survivors(engine):
        with suppress(psutil.Error):
            for each in process.net_connections(kind="tcp"):
                listens = each.status == psutil.CONN_LISTEN and each.laddr
                if listens and not ipaddress.ip_address(each.laddr.ip).is_loopback:
                    places.add(f"{each.laddr.ip} port {each.laddr.port}")
    return ", ".join(sorted(places))


if __name__ == "__main__":
    folder = load().run_dir / "engines"
    print(json.dumps(find_exposed(Records(folder))))
