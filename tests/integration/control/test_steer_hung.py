"""The only engine of a model hangs, and hangs again: each time it comes back."""

import signal
from pathlib import Path

import psutil

from modelserver.store.fleet.control import read_wishes
from tests.support.fleets import model, open_hosts
from tests.support.processes import ValkeyProcess, eventually
from tests.support.workers import answers

#: Two hangs of ten seconds and more, and two starts.
PATIENCE = 90.0


def test_the_last_engine_is_relaunched_each_time_that_it_hangs(
    valkey: ValkeyProcess, tmp_path: Path
):
    rules = "hang_seconds = 10\nrelaunch_pause_seconds = 1"
    with open_hosts(tmp_path, valkey.url, model("m"), extra=rules) as hosts:
        hosts.launch("a")
        hosts.worker("a")
        for incarnation in (1, 2):
            engine = hosts.ready("m-0", incarnation)
            eventually(lambda: not read_wishes(hosts.store)["m-0"].hold, PATIENCE)
            psutil.Process(engine.pid).send_signal(signal.SIGSTOP)
            result = hosts.complete.delay(f"request {incarnation}")
            hosts.ready("m-0", incarnation + 1, within=PATIENCE)
            assert len(answers([result], PATIENCE)) == 1
