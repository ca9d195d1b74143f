"""Control itself is struck while it treats an engine: it goes on where it was."""

import signal
import time

from benchmarks.report import Report
from modelserver.policy.health.memory import Health
from modelserver.store.fleet.control import read_steered
from tests.chaos.control.engines import SICK, SLOW, SLOW_SECONDS, STEADY
from tests.chaos.control.fleet import ENGINES, Fleet
from tests.chaos.control.run import Run, promises, relaunched_once, report
from tests.chaos.control.watch import remembered
from tests.support.processes import eventually

#: Slow enough for a drain that takes several looks.
VERY_SLOW = 8.0
#: How long the server is away, in seconds.
AWAY_SECONDS = 2.0


def controller_killed() -> Report:
    """SIGKILL of the worker that is control, in mid-drain: the next one goes on.

    Two workers; the one that steered last dies as soon as the sick engine drains, with
    the requests that it had, and another is started in its place.
    """
    with Fleet(workers=2) as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        fleet.fault(SICK, slow=VERY_SLOW)
        eventually(lambda: _health(fleet) is Health.DRAINING, SLOW_SECONDS)
        _, owner = read_steered(fleet.store)
        workers = fleet.hosts.workers
        pid = int(owner.rpartition("-")[2])
        (victim,) = [each for each in workers if each.pid == pid]
        victim.signal(signal.SIGKILL)
        victim.wait()
        was = _health(fleet)
        fleet.add_worker()
        run.await_ready()
        done = run.finish("controller killed")
    goals = [*promises([done]), *relaunched_once(done, SLOW_SECONDS)]
    return report([done], goals, f"the engine was {was} when its controller was dead")


def two_beats() -> Report:
    """Two beats and two workers: each decision is made once."""
    with Fleet(workers=2, beats=2) as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        fleet.fault(SICK, slow=SLOW)
        run.await_ready()
        done = run.finish("two beats")
    return report([done], [*promises([done]), *relaunched_once(done, SLOW_SECONDS)])


def redis_restarted_in_relaunch() -> Report:
    """SIGKILL of the server while an engine is relaunched, and its restart.

    With an append-only file, written through at every command.
    """
    options = {"appendonly": "yes", "appendfsync": "always"}
    with Fleet(server=options) as fleet, Run(fleet, ENGINES, STEADY) as run:
        run.calibrate()
        run.strike(SICK)
        fleet.fault(SICK, slow=SLOW)
        eventually(lambda: _health(fleet) is Health.RELAUNCHING, SLOW_SECONDS + 60)
        fleet.server.stop()
        time.sleep(AWAY_SECONDS)
        fleet.server.start()
        run.await_ready()
        done = run.finish("redis restarted")
    return report([done], [*promises([done]), *relaunched_once(done, SLOW_SECONDS)])


def _health(fleet: Fleet) -> Health:
    return remembered(fleet.store).engines[SICK].health
