"""Scenarios of GPUs that move between models: two simulated hours, six seeds each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.report import Cell, Goal, Report
from tests.scenarios.moves_world import Load, World, model

SEEDS = range(6)
TWO_HOURS = 7200.0
Make = Callable[[int, bool], World]


def steps(*changes: tuple[float, float]) -> Load:
    """Requests a second from each of these times on."""

    def at(now: float) -> float:
        return next((rate for since, rate in reversed(changes) if now >= since), 0.0)

    return at


def two(loads: dict[str, Load], bursts: Sequence[tuple[float, str, int]] = ()) -> Make:
    """Two models with four engines each on eight GPUs, 9.1 requests/s for four."""

    def make(seed: int, steers: bool) -> World:
        specs = (model("a", 1, 6), model("b", 1, 6))
        start = {"a": 4, "b": 4}
        return World(specs, loads, start, seed, bursts, steers=steers)

    return make


STEP = two({"a": steps((0, 5), (1800, 13)), "b": steps((0, 3))})
THERE_AND_BACK = two(
    {
        "a": steps((0, 5), (1200, 13), (3000, 3)),
        "b": steps((0, 3), (4200, 13), (6000, 3)),
    }
)
BURSTS = two(
    {"a": steps((0, 4)), "b": steps((0, 4))},
    [(600.0 * n, "ab"[n % 2], 700) for n in range(1, 12)],
)
BATCH = two({"a": steps((0, 0)), "b": steps((0, 3))}, [(600.0, "a", 60_000)])
OVERLOADED = two({"a": steps((0, 5), (600, 13)), "b": steps((0, 5), (600, 12))})


def tides(seed: int, steers: bool) -> World:
    """Ten minutes of overload on one model, then on the other, and so on."""

    def tide(name: str) -> Load:
        return lambda now: 12 if (now % 1200 < 600) == (name == "a") else 2

    make = two({"a": tide("a"), "b": tide("b")})
    return make(seed, steers)


def three_models(seed: int, steers: bool) -> World:
    """The load goes from one model to the next; each has its turn."""
    specs = (model("a", 1, 5), model("b", 1, 5), model("c", 1, 5))
    loads = {
        "a": steps((0, 3), (900, 9), (2700, 2)),
        "b": steps((0, 2), (2700, 9), (4500, 2)),
        "c": steps((0, 2), (4500, 8)),
    }
    return World(specs, loads, {"a": 3, "b": 3, "c": 2}, seed, steers=steers)


def mixed_sizes(seed: int, steers: bool) -> World:
    """Engines of two GPUs beside engines of one."""
    specs = (model("big", 1, 4, gpus=2), model("small", 1, 6))
    loads = {
        "big": steps((0, 2), (900, 6), (3600, 1)),
        "small": steps((0, 2), (4200, 11)),
    }
    return World(specs, loads, {"big": 2, "small": 4}, seed, steers=steers)


def sleeper(seed: int, steers: bool) -> World:
    """A model that nobody needs for an hour, beside two with all other GPUs."""
    specs = (model("a", 1, 6), model("b", 1, 6), model("c", 0, 1, idle_seconds=900))
    loads = {"a": steps((0, 5)), "b": steps((0, 4))}
    bursts = [(60.0, "c", 20), (5400.0 + seed, "c", 1)]
    start = {"a": 4, "b": 3, "c": 1}
    return World(specs, loads, start, seed, bursts, steers=steers)


def longer(seed: int, steers: bool, knows_sizes: bool = True) -> World:
    """An hour of short requests with bursts; then fewer, each twenty times as long."""
    specs = (model("a", 1, 6), model("b", 1, 6))
    loads = {"a": steps((0, 20), (3600, 2.5)), "b": steps((0, 2))}
    bursts = [(600.0 * n, "a", 3000) for n in range(1, 6)]
    sizes = {"a": steps((0, 0.25), (3600, 5))}
    start = {"a": 4, "b": 4}
    world = World(specs, loads, start, seed, bursts, steers=steers, sizes=sizes)
    world.knows_sizes = knows_sizes
    return world


@dataclass(frozen=True, slots=True)
class Trial:
    """The worlds of one case, steered and left alone, seed by seed."""

    name: str
    steered: tuple[World, ...]
    static: tuple[World, ...]

    @property
    def row(self) -> tuple[Cell, ...]:
        """What the table says of it."""
        moves = [len(world.donations) for world in self.steered]
        free = [len(world.moves) - len(world.donations) for world in self.steered]
        return (
            self.name,
            _span(moves),
            _span(free),
            max(world.reversals() for world in self.steered),
            fmean(world.mean_wait() for world in self.steered),
            fmean(world.mean_wait() for world in self.static),
            sum(len(world.broken) for world in self.steered),
            sum(abs(world.lost()) for world in self.steered),
        )


COLUMNS = (
    "case",
    "moves",
    "starts on free GPUs",
    "reversals",
    "mean wait s",
    "static s",
    "rules broken",
    "lost",
)


def trial(name: str, make: Make, seeds: Sequence[int] = SEEDS) -> Trial:
    """Run one case with each seed, steered and static."""
    steered = tuple(make(seed, True).run(TWO_HOURS) for seed in seeds)
    static = tuple(make(seed, False).run(TWO_HOURS) for seed in seeds)
    return Trial(name, steered, static)


def _span(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"


def _common(trials: Sequence[Trial]) -> list[Goal]:
    worlds = [world for each in trials for world in each.steered]
    broken = sum(len(world.broken) for world in worlds)
    lost = sum(abs(world.lost()) for world in worlds)
    return [
        Goal("min max or memory not honoured", broken, 0, "", True),
        Goal("requests lost while engines move", lost, 0, "", True),
    ]


def _moves(world: World) -> int:
    """GPUs that changed hands, also by way of being free."""
    return len(world.moves)


def moves_step() -> Report:
    """The load of one model steps up, and later back: GPUs follow, once each way."""
    step = trial("step", STEP)
    back = trial("there and back", THERE_AND_BACK)
    least, most = min(map(_moves, step.steered)), max(map(_moves, step.steered))
    reversals = max(world.reversals() for t in (step, back) for world in t.steered)
    wait = _share((step,)), _share((back,))
    return Report(
        COLUMNS,
        (step.row, back.row),
        (
            Goal("moves at a step", least, 2),
            Goal("most moves at a step", most, 3, "", True),
            Goal("reversals at steps", reversals, 0, "", True),
            Goal("wait at a step as a share of static", wait[0], 0.2, "", True),
            Goal("wait there and back as a share", wait[1], 0.4, "", True),
            *_common((step, back)),
        ),
    )


def _share(trials: Sequence[Trial]) -> float:
    steered = fmean(world.mean_wait() for t in trials for world in t.steered)
    return steered / fmean(world.mean_wait() for t in trials for world in t.static)


def moves_burst() -> Report:
    """Bursts of 700, and both models overloaded: nothing moves."""
    bursts, both = trial("bursts of 700", BURSTS), trial("both overloaded", OVERLOADED)
    return Report(
        COLUMNS,
        (bursts.row, both.row),
        (
            Goal("moves for bursts", max(map(_moves, bursts.steered)), 0, "", True),
            Goal("moves where both need", max(map(_moves, both.steered)), 0, "", True),
            *_common((bursts, both)),
        ),
    )


def moves_batch() -> Report:
    """A batch of 60,000 requests beside a model with little to do."""
    batch = trial("batch of 60,000", BATCH)
    reversals = max(world.reversals() for world in batch.steered)
    return Report(
        COLUMNS,
        (batch.row,),
        (
            Goal("moves for a batch", min(map(_moves, batch.steered)), 2),
            Goal(
                "most moves for a batch", max(map(_moves, batch.steered)), 3, "", True
            ),
            Goal("reversals after a batch", reversals, 0, "", True),
            Goal("wait of a batch as a share", _share((batch,)), 0.8, "", True),
            *_common((batch,)),
        ),
    )


def moves_several() -> Report:
    """Three models in turn, and engines of two GPUs beside engines of one."""
    trials = trial("three models", three_models), trial("mixed sizes", mixed_sizes)
    reversals = max(world.reversals() for t in trials for world in t.steered)
    return Report(
        COLUMNS,
        tuple(each.row for each in trials),
        (
            Goal("reversals among several", reversals, 0, "", True),
            Goal("wait of several as a share", _share(trials), 0.5, "", True),
            *_common(trials),
        ),
    )


def moves_sizes() -> Report:
    """Requests become twenty times as long: weighed, and only counted."""
    weighed = trial("weighed", longer)
    counted = trial("counted", lambda seed, steers: longer(seed, steers, False))
    waits = [fmean(w.mean_wait() for w in t.steered) for t in (weighed, counted)]
    shares = waits[0] / waits[1], _share((weighed,))
    late = max(min(move.at for move in world.moves) for world in weighed.steered)
    return Report(
        COLUMNS,
        (weighed.row, counted.row),
        (
            Goal(
                "wait by work as a share of by count",
                shares[0],
                0.8,
                "",
                True,
            ),
            Goal("wait by work as a share of static", shares[1], 0.4, "", True),
            Goal("seconds until a move by work", late - 3600, 600, "", True),
            Goal("most moves by work", _most(weighed), 3, "", True),
            *_common((weighed, counted)),
        ),
    )


def moves_tides() -> Report:
    """Overload that changes sides every ten minutes, faster than GPUs pay for."""
    found = trial("tides of 10 minutes", tides)
    reversals = max(world.reversals() for world in found.steered)
    return Report(
        COLUMNS,
        (found.row,),
        (
            Goal("moves at tides in two hours", _most(found), 16, "", True),
            Goal("reversals at tides", reversals, 16, "", True),
            *_common((found,)),
        ),
        ("static is better here: nothing foresees the next tide",),
    )


def _most(found: Trial) -> int:
    return max(map(_moves, found.steered))


def moves_sleep() -> Report:
    """An idle model's engine ends; one request wakes it; nothing is lost."""
    worlds = [sleeper(seed, True).run(TWO_HOURS) for seed in SEEDS]
    ends = [sum(e.startswith("c-") for _, e in world.ended) for world in worlds]
    waits = [world.waited_seconds["c"] for world in worlds]
    answered = min(world.finished["c"] for world in worlds)
    broken = sum(len(world.broken) for world in worlds)
    lost = sum(abs(world.lost()) for world in worlds)
    return Report(
        ("seeds", "engines ended", "wakes", "seconds the request waited", "lost"),
        (
            (
                len(worlds),
                sum(ends),
                sum(world.starts["c"] for world in worlds),
                max(waits),
                lost,
            ),
        ),
        (
            Goal("idle engines ended for each seed", min(ends), 1),
            Goal("requests answered by a sleeper", answered, 21),
            Goal("seconds until a sleeper answers", max(waits), 110, "", True),
            Goal("min or max broken around sleep", broken, 0, "", True),
            Goal("requests lost around sleep", lost, 0, "", True),
        ),
    )


MOVES = {
    "moves-step": moves_step,
    "moves-burst": moves_burst,
    "moves-batch": moves_batch,
    "moves-several": moves_several,
    "moves-sizes": moves_sizes,
    "moves-tides": moves_tides,
    "moves-sleep": moves_sleep,
}
