"""Redis comes back without its data: the hosts bring back the fleet and go on."""

import json
import time

from benchmarks.report import Goal, Report
from modelserver.store.fleet.applied import read_applied_fleet
from modelserver.store.fleet.control import read_wishes
from modelserver.values import EngineReport
from tests.chaos.hosts import PATIENCE, Traffic, hosts_of, report
from tests.chaos.hosts import account as account_of
from tests.support.fleets import Hosts, model
from tests.support.processes import ValkeyProcess, eventually

#: How long the server is away, in seconds.
AWAY_SECONDS = 5.0
#: How long the fleet is watched once it is back, in seconds: longer than any grace.
WATCH_SECONDS = 25.0
#: How often it happens.
TIMES = 3


def redis_empty() -> Report:
    """The server restarts without data, three times: engines and fleet stay.

    Two hosts with an engine each, and a signed fleet of version 2. What waited in the
    lost queues is lost with them; requests count from when the fleet is back.
    """
    with hosts_of(model("m", min_engines=2)) as (hosts, valkey):
        hosts.apply(model("m", min_engines=1), options=("--wait", "0"))
        hosts.apply(model("m", min_engines=2), options=("--wait", "0"))
        for host in ("a", "b"):
            hosts.worker(host)
            hosts.launch(host)
        before = {name: hosts.ready(name, within=PATIENCE) for name in ("m-0", "m-1")}
        struck, seconds, versions = [], [], []
        for number in range(1, TIMES + 1):
            took = _lose(hosts, valkey, before)
            seconds.append(took)
            versions.append(json.loads(read_applied_fleet(hosts.store))["version"])
            with Traffic(hosts) as traffic:
                time.sleep(WATCH_SECONDS)
            struck += [
                account_of(f"{number}: {name}", traffic, engine, hosts.engine(name))
                for name, engine in before.items()
            ]
        return report(
            struck,
            Goal("back after", max(seconds), 30, "s", at_most=True),
            Goal("version of the fleet", min(versions), 2),
            notes=["each engine's line has the same requests, which both answered"],
        )


def _lose(
    hosts: Hosts, valkey: ValkeyProcess, engines: dict[str, EngineReport]
) -> float:
    """Seconds from an empty server to a fleet with all its wishes and reports."""
    valkey.stop()
    time.sleep(AWAY_SECONDS)
    valkey.start()
    began = time.monotonic()

    def back() -> bool:
        wishes = read_wishes(hosts.store).keys() == engines.keys()
        reports = all(hosts.engine(name) for name in engines)
        return wishes and reports and bool(read_applied_fleet(hosts.store))

    eventually(back, PATIENCE)
    return time.monotonic() - began
