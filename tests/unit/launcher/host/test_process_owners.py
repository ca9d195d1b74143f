"""Whose process a pid is."""

import subprocess
import time
from dataclasses import replace

import psutil

from launcher.host import process
from launcher.host.process import EngineProcess, Identity
from launcher.host.process_owners import ProcessOwners
from tests.support.processes import eventually, lives


def test_processes_of_a_container_are_the_engines_where_their_mark_is_hidden() -> None:
    script = "sleep 300 & wait"
    with subprocess.Popen(["/bin/bash", "-c", script]) as first:
        head = psutil.Process(first.pid)
        (child,) = eventually(lambda: head.children())
        engine = Identity(0, time.time(), "the mark", "/bin/true")
        inner = replace(engine, inner_pid=head.pid, inner_created=head.create_time())
        owners = ProcessOwners(lambda: [("m-0", inner)])
        owners.refresh()
        found = owners.identify(child.pid, used=5)
        assert found is not None
        assert found.engine == "m-0"
        assert {each.pid for each in process.survivors(inner)} == {head.pid, child.pid}
        assert process.survivors(engine) == []
        assert EngineProcess(inner).kill() == []
    assert not lives(child.pid)
