"""A schedule in the fleet file of a fleet that runs."""

import json
from pathlib import Path

from tests.support.fleets import model, open_hosts
from tests.support.processes import ValkeyProcess

ALL_DAY = """
[[models.schedule]]
from = "0:00"
to = "24:00"
min_engines = 2
"""


def test_a_window_brings_engines_and_is_told(valkey: ValkeyProcess, tmp_path: Path):
    plain = model("m", max_engines=2)
    zone = 'time_zone = "UTC"'
    with open_hosts(tmp_path, valkey.url, plain, extra=zone) as hosts:
        hosts.launch("a")
        hosts.ready("m-0")
        said = hosts.apply(plain + ALL_DAY)
        assert '["0:00-24:00 daily UTC: 2 engines"] (at once)' in said
        hosts.ready("m-1")
        (shown,) = json.loads(hosts.run("status", "--json").stdout)["models"]
        assert shown["schedule"] == "0:00-24:00 daily UTC: 2 engines"
        assert "schedule 0:00-24:00 daily" in hosts.run("status").stdout
        why = hosts.run("why", "m").stdout
        assert "  schedule    0:00-24:00 daily UTC: 2 engines" in why
        hosts.apply(plain)
        assert "  schedule " not in hosts.run("why", "m").stdout
