"""Faults of engines, beside one that is well."""

import time

from benchmarks.report import Report
from benchmarks.rig import Rig
from tests.chaos.load import Account, Load
from tests.chaos.workers import report

REQUESTS = 300
#: After this time a launcher would have killed an engine that hangs, in seconds.
NOTICED_SECONDS = 3.0
#: Faults of an engine that lives on: its answers are bad, or it gives none. An empty
#: text is not among them: a model may well answer that.
BAD_ANSWERS: tuple[dict[str, object], ...] = (
    {"status": 500},
    {"half_json": True},
    {"no_choices": True},
    {"wrong_json": True},
    {"reset": True},
    {"status": 503, "retry_after": 1},
)
NO_ANSWERS: tuple[dict[str, object], ...] = ({"hang": True}, {"drip": True})


def engine_faults() -> Report:
    """One of two engines fails in each way that it can: the other answers everything.

    Engines that hang or drip are killed after three seconds, as their launcher would;
    until then their requests wait, since nobody can tell a slow answer from none.
    """
    accounts = [_killed()]
    accounts += [_faulty(fault, killed=False) for fault in BAD_ANSWERS]
    accounts += [_faulty(fault, killed=True) for fault in NO_ANSWERS]
    return report(accounts, 10.0, "a killed engine's own counts of runs are lost")


def _killed() -> Account:
    with Rig("--latency", "0.3", engines=2, limit=32) as rig:
        load = _in_mid_load(rig)
        load.strike(load.unanswered())
        rig.engines[0].kill()
        load.settle(within=60)
        return load.account("killed")


def _faulty(fault: dict[str, object], killed: bool) -> Account:
    with Rig("--latency", "0.3", engines=2, limit=32) as rig:
        load = _in_mid_load(rig)
        load.strike(load.unanswered())
        rig.engines[0].fault(**fault)
        if killed:
            time.sleep(NOTICED_SECONDS)
            rig.engines[0].kill()
        load.settle(within=60)
        return load.account(" ".join(f"{key}={value}" for key, value in fault.items()))


def _in_mid_load(rig: Rig) -> Load:
    rig.worker()
    load = Load(rig)
    load.send(REQUESTS)
    load.wait(REQUESTS // 4)
    return load
