"""Load that changes sides, whatever its period: moves never cost much.

Each case is two simulated hours on eight GPUs, beside the same without moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.report import Cell, Goal, Report
from tests.scenarios.moves import SEEDS, TWO_HOURS, Load, Make, two
from tests.scenarios.moves_world import World, model

#: Seconds for which the load stays on one side.
PERIODS = (120, 300, 450, 600, 900, 1000, 1800, 3600)


def sides(period: float, high: float = 12, low: float = 2) -> Make:
    """Overload on one model, then on the other, and so on."""

    def on(name: str) -> Load:
        return lambda now: (
            high if (now % (2 * period) < period) == (name == "a") else low
        )

    return two({"a": on("a"), "b": on("b")})


def rounds(period: float) -> Make:
    """Overload that goes round three models."""

    def on(place: int) -> Load:
        return lambda now: 9 if now // period % 3 == place else 2

    def make(seed: int, steers: bool) -> World:
        specs = tuple(model(name, 1, 5) for name in "abc")
        loads = {name: on(place) for place, name in enumerate("abc")}
        return World(specs, loads, {"a": 3, "b": 3, "c": 2}, seed, steers=steers)

    return make


def lasting(seed: int, steers: bool) -> World:
    """An hour of sides of ten minutes, then two hours of load on one model."""
    before = sides(600)(seed, steers).loads

    def then(name: str, rate: float) -> Load:
        return lambda now: before[name](now) if now < 3600 else rate

    return two({"a": then("a", 13), "b": then("b", 3)})(seed, steers)


@dataclass(frozen=True, slots=True)
class TurnsTrial:
    """One case with each seed, steered and left alone."""

    name: str
    steered: tuple[World, ...]
    static: tuple[World, ...]

    @property
    def shares(self) -> list[float]:
        """The mean wait with moves as a share of that without, seed by seed."""
        pairs = zip(self.steered, self.static, strict=True)
        return [one.mean_wait() / max(1.0, other.mean_wait()) for one, other in pairs]

    @property
    def row(self) -> tuple[Cell, ...]:
        """What the table says of it."""
        moves = [len(world.donations) for world in self.steered]
        return (
            self.name,
            f"{min(moves)} to {max(moves)}",
            max(world.turns() for world in self.steered),
            fmean(world.mean_wait() for world in self.steered),
            fmean(world.mean_wait() for world in self.static),
            max(self.shares),
            sum(sum(world.finished.values()) for world in self.steered)
            / sum(sum(world.finished.values()) for world in self.static),
        )


COLUMNS = (
    "case",
    "moves",
    "turns",
    "mean wait s",
    "static s",
    "worst share",
    "answers as a share",
)


def run_turns(
    name: str, make: Make, seeds: Sequence[int] = SEEDS, seconds: float = TWO_HOURS
) -> TurnsTrial:
    """Run one case with each seed, steered and static."""
    steered = tuple(make(seed, True).run(seconds) for seed in seeds)
    static = tuple(make(seed, False).run(seconds) for seed in seeds)
    return TurnsTrial(name, steered, static)


def turns() -> Report:
    """Load that changes sides every 2 to 60 minutes, or goes round three models."""
    trials = [run_turns(f"sides of {each} s", sides(each)) for each in PERIODS]
    trials += [run_turns(f"rounds of {each} s", rounds(each)) for each in (300, 600)]
    after = run_turns("sides of 600 s, then lasting", lasting, seconds=10_800)
    means = [fmean(each.shares) for each in trials]
    worst = max(
        mean for each, mean in zip(trials, means, strict=True) if "450" not in each.name
    )
    slow = max(trials[PERIODS.index(1800)].shares)
    lost = sum(abs(w.lost()) for each in (*trials, after) for w in each.steered)
    return Report(
        COLUMNS,
        tuple(each.row for each in (*trials, after)),
        (
            Goal("wait as a share of static", worst, 1.1, "", True),
            # Moves arrive just when the load turns: the worst period there is.
            Goal("the same with sides of 450 s", max(means), 1.15, "", True),
            Goal("wait as a share where moves pay, 1800 s", slow, 0.6, "", True),
            Goal("wait as a share, lasting at last", max(after.shares), 0.8, "", True),
            Goal("requests lost while load turns", lost, 0, "", True),
        ),
    )


TURNS = {"turns": turns}
