"""Whether a part works here, as probes are told."""

from pathlib import Path

import pytest

from modelserver.inventory import Host
from modelserver.operations.alive import find_fault
from modelserver.settings import load
from modelserver.store import connect
from modelserver.store.fleet.control import report_steered
from modelserver.store.fleet.hosts import end_host_lease, report_host
from tests.support.processes import ValkeyProcess


def test_a_part_is_well_while_it_reports_from_this_host(
    tmp_path: Path, valkey: ValkeyProcess
):
    (tmp_path / "fleet.toml").write_text(f'[redis]\nurl = "{valkey.url}"\n')
    settings = load({"MODELSERVER_HOST": "h1"}, tmp_path)
    store = connect(settings)
    report_host(store, Host("h2"), lease_seconds=60)
    assert "no launcher" in find_fault(store, settings, "launcher")
    report_host(store, Host("h1"), lease_seconds=60)
    assert find_fault(store, settings, "launcher") == ""
    end_host_lease(store, "h1")
    assert "no launcher" in find_fault(store, settings, "launcher")
    assert "no worker" in find_fault(store, settings, "worker")
    assert "submitted runs" in find_fault(store, settings, "batches")
    assert "has never looked" in find_fault(store, settings, "beat")
    report_steered(store, "test")
    assert find_fault(store, settings, "beat") == ""
    with pytest.raises(ValueError, match="no part"):
        find_fault(store, settings, "cook")
    store.client.close()
