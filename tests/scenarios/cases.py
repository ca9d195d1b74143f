"""The scenarios: what happens to a fleet, and what control should make of it."""

from benchmarks.report import Goal, Report
from modelserver.inventory import Host
from tests.scenarios.world import World
from tests.support import processes

HOUR = 3600.0


def healthy() -> Report:
    """Eight healthy engines for 40 hours: nothing is relaunched or moved."""
    world = World(engines_wanted=8, hosts=_hosts(4))
    world.run(HOUR)
    settled = len(world.decided)
    world.run(39 * HOUR)
    late = len(world.decided) - settled
    return Report(
        columns=("engine-hours", "relaunches", "other actions after the start"),
        rows=((8 * 40, len(world.relaunches()), late),),
        goals=(
            Goal("relaunches of healthy engines", len(world.relaunches()), 0, "", True),
            Goal("actions where nothing changes", late, 0, "", True),
        ),
    )


def hung_engine() -> Report:
    """One of eight engines hangs: relaunched once, in time, the others untouched."""
    world = World(engines_wanted=8, hosts=_hosts(4))
    world.run(HOUR)
    began = world.now
    world.hung.add("m-3")
    world.run(HOUR)
    relaunched = world.relaunches()
    delay = relaunched[0][0] - began if relaunched else float("nan")
    others = sum(action.engine != "m-3" for _, action in relaunched)
    return Report(
        columns=("seconds to relaunch", "relaunches", "of others", "ready at the end"),
        rows=((delay, len(relaunched), others, world.ready()),),
        goals=(
            Goal("seconds to relaunch a hung engine", delay, 90, "", True),
            Goal("relaunches of a hung engine", len(relaunched), 1, "", True),
            Goal("relaunches of its peers", others, 0, "", True),
            Goal("engines ready after a hang", world.ready(), 8),
        ),
    )


def lost_host() -> Report:
    """A host of four is lost: its engines come up on others, and go back with it."""
    world = World(engines_wanted=8, hosts=_hosts(4, gpus=4), gpus=1)
    world.run(HOUR)
    lost = world.hosts.pop(0)
    moved = sum(engine.host == lost.name for engine in world.engines.values())
    began, back = world.now, float("nan")
    while world.now < began + HOUR:
        world.run(2)
        if world.ready() == 8:
            back = world.now - began
            break
    settled = len(world.decided)
    world.hosts.insert(0, lost)
    world.run(HOUR)
    moves = len(world.decided) - settled
    returned = sum(engine.host == lost.name for engine in world.engines.values())
    return Report(
        columns=(
            "engines lost",
            "seconds until all serve",
            "moves when it is back",
            "engines on it then",
        ),
        rows=((moved, back, moves, returned),),
        goals=(
            Goal("seconds until a lost hosts engines serve", back, 60, "", True),
            Goal("engines on the host that is back", returned, moved),
            Goal("moves when the host is back", moves, moved, "", True),
        ),
    )


def short_of_gpus() -> Report:
    """More engines wanted than GPUs: never more placed on a host than it has."""
    world = World(engines_wanted=12, hosts=_hosts(2, gpus=4), gpus=1)
    world.run(HOUR)
    placed = [wish.spec.host for wish in world.wishes.values()]
    most = max(placed.count(host.name) for host in world.hosts)
    return Report(
        columns=("wanted", "placed", "most on one host", "its GPUs"),
        rows=((12, len(placed), most, 4),),
        goals=(
            Goal("engines on a host of four GPUs", most, 4, "", True),
            Goal("engines placed on eight GPUs", len(placed), 8),
        ),
    )


def _hosts(number: int, gpus: int = 0) -> list[Host]:
    return [Host(f"h{place}", gpus=processes.gpus(gpus)) for place in range(number)]
