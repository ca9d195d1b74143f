"""Models with ranks and schedules: who gets GPUs where there are not enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.report import Cell, Goal, Report
from modelserver.inventory import Host
from modelserver.schedules import ScheduledWindow
from modelserver.values import ModelSpec
from tests.scenarios.moves import SEEDS, TWO_HOURS, steps
from tests.scenarios.moves_world import Load, World, model
from tests.support import processes

#: When the day begins, in seconds of the simulated time.
MORNING = 3600.0
#: The same by the clock: the simulated time begins at midnight UTC.
AT_ONE = ScheduledWindow(60, 120, tuple(range(7)), 4, "UTC")
#: Requests of a batch that eight engines work at for six hours.
BATCH = 400_000


@dataclass(frozen=True, slots=True)
class RankTrial:
    """One case with each seed."""

    name: str
    worlds: tuple[World, ...]
    #: How many engines the day's model had in each world, by second.
    served: tuple[dict[int, int], ...]

    def wait(self, name: str) -> float:
        """The mean wait of a model's requests that were taken, over all seeds."""
        waited = sum(world.waited_seconds[name] for world in self.worlds)
        waits = sum(
            count * (world.now - at)
            for world in self.worlds
            for at, count, _ in world.queues[name]
        )
        return (waited + waits) / max(1, sum(w.arrived[name] for w in self.worlds))

    def reached(self, engines: int) -> list[float]:
        """Seconds from the morning until the day had so many engines, seed by seed."""
        return [
            min((at for at, count in seen.items() if count >= engines), default=1e6)
            - MORNING
            for seen in self.served
        ]

    @property
    def row(self) -> tuple[Cell, ...]:
        """What the table says of it."""
        late = max(self.reached(4))
        return (
            self.name,
            fmean(len(world.donations) for world in self.worlds),
            max(world.turns() for world in self.worlds),
            late if late < 1e5 else "never",
            self.wait("day"),
            fmean(world.finished["day"] for world in self.worlds),
            fmean(world.finished["night"] for world in self.worlds),
            sum(len(world.broken) for world in self.worlds),
        )


COLUMNS = (
    "case",
    "moves",
    "turns",
    "s until the day has 4 engines",
    "day's mean wait s",
    "answers of the day",
    "answers of the night",
    "rules broken",
)

MakeWorld = Callable[[int], World]
Event = tuple[float, Callable[[World], None]]


def run_rank(
    name: str,
    make: MakeWorld,
    seeds: Sequence[int] = SEEDS,
    events: Sequence[Event] = (),
) -> RankTrial:
    """Run one case with each seed and look at the day's engines every ten seconds."""
    worlds, looks = [], []
    for seed in seeds:
        world, seen = make(seed), dict[int, int]()
        while world.now < TWO_HOURS:
            for at, happen in events:
                if at == world.now:
                    happen(world)
            world.run(10)
            engines = [each for each in world.engines.values() if each.model == "day"]
            seen[int(world.now)] = sum(each.state.serves for each in engines)
        worlds.append(world)
        looks.append(seen)
    return RankTrial(name, tuple(worlds), tuple(looks))


def night_and_day(
    day: ModelSpec, night: ModelSpec, load: Load, engines: int = 1
) -> MakeWorld:
    """A batch on most GPUs that is not done when the day begins."""

    def make(seed: int) -> World:
        start = {"day": engines, "night": 8 - engines}
        loads = {"day": load, "night": steps((0, 0))}
        return World((day, night), loads, start, seed, [(1.0, "night", BATCH)])

    return make


def ranked(least: int = 1, **more: object) -> ModelSpec:
    """The day's model, which goes before the night's."""
    return replace(model("day", least, 6), priority=10, **more)  # type: ignore[arg-type]


DAY, NIGHT = model("day", 1, 6), model("night", 1, 7)
WORK: Load = steps((0, 0.2), (MORNING, 8))
RANKED = night_and_day(ranked(), NIGHT, WORK)
EQUAL = night_and_day(DAY, NIGHT, WORK)
KEPT = night_and_day(ranked(), model("night", 4, 7), WORK)
TINY = night_and_day(ranked(), NIGHT, steps((0, 0.2), (MORNING, 1.5)))
CLOCK = night_and_day(ranked(schedule=(AT_ONE,)), NIGHT, WORK)
CLOCK_EQUAL = night_and_day(replace(DAY, schedule=(AT_ONE,)), NIGHT, WORK)


def waves(now: float) -> float:
    """A day whose load comes and goes every ten minutes."""
    return 8.0 if now % 1200 < 600 else 0.5


WAVES = night_and_day(ranked(), NIGHT, waves)


def two_hosts(day: ModelSpec) -> MakeWorld:
    """The day on one host, the night's batch on the other."""

    def make(seed: int) -> World:
        gpus = processes.gpus(8)
        hosts = (Host("h", gpus[:4]), Host("i", gpus[4:]))
        loads = {"day": steps((0, 6)), "night": steps((0, 0))}
        start = {"day": 4, "night": 4}
        bursts = [(1.0, "night", BATCH)]
        return World((day, NIGHT), loads, start, seed, bursts, hosts)

    return make


#: The host of the day goes in the morning.
LOSS: Event = (MORNING, lambda world: world.lose("h"))


def rank() -> Report:
    """A night's batch that runs into the day, schedules, and a host that is lost."""
    trials = {
        "night into day, ranked": run_rank("night into day, ranked", RANKED),
        "equal": run_rank("night into day, equal ranks", EQUAL),
        "kept": run_rank("the night keeps its 4", KEPT),
        "tiny": run_rank("a tiny demand of high rank", TINY),
        "clock": run_rank("by the clock at 1:00", CLOCK),
        "clock equal": run_rank("by the clock, equal ranks", CLOCK_EQUAL),
        "waves": run_rank("waves of high rank", WAVES),
        "loss": run_rank("host lost, ranked", two_hosts(ranked(3)), events=[LOSS]),
        "loss equal": run_rank(
            "host lost, equal ranks", two_hosts(model("day", 3, 6)), events=[LOSS]
        ),
    }
    first = trials["night into day, ranked"]
    shares = first.wait("day") / trials["equal"].wait("day")
    kept = [w for w in trials["kept"].worlds if w.lowest["night"] < 4]
    broken = sum(
        len(w.broken) + abs(w.lost()) for t in trials.values() for w in t.worlds
    )
    tiny = max(len(world.donations) for world in trials["tiny"].worlds)
    lost = max(_again(trials["loss"]))
    return Report(
        COLUMNS,
        tuple(each.row for each in trials.values()),
        (
            Goal("s until a ranked day has 4", max(first.reached(4)), 720, "", True),
            Goal("its wait as a share of equal ranks", shares, 0.1, "", True),
            Goal("seeds in which the night lost its minimum", len(kept), 0, "", True),
            Goal("moves for a tiny demand", tiny, 1, "", True),
            Goal("s late by the clock", max(trials["clock"].reached(4)), 0, "", True),
            Goal("turns of waves", _turns(trials["waves"]), 6, "", True),
            Goal("s until 3 engines after a loss", lost, 600, "", True),
            Goal("rules broken or requests lost", broken, 0, "", True),
        ),
    )


def _turns(trial: RankTrial) -> int:
    return max(world.turns() for world in trial.worlds)


def _again(trial: RankTrial) -> list[float]:
    """Seconds from the loss until three engines of the day serve again."""
    return [
        min((at for at, n in seen.items() if at > MORNING and n >= 3), default=1e6)
        - MORNING
        for seen in trial.served
    ]


RANK = {"rank": rank}
