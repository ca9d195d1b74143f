"""How far a run is, as plain values and back.

Without what errors say: they may quote prompts.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelserver.decoding import decode
from modelserver.runs.files.journal import BatchPaths
from modelserver.runs.files.tally import ModelTally, Tally
from modelserver.store.runs.hosted import HostedRun

if TYPE_CHECKING:
    # Who only looks at a run does without all that carries it out.
    from modelserver.runs.files.batch_run import BatchRun

#: Rates are told as those of a time as long as this, in seconds.
_RATE_SECONDS = 1_000


def tell(run: "BatchRun") -> dict[str, Any]:
    """Where a run stands now. In the thread that carries it out."""
    return _tell_tally(run.tally) | {
        "rates": [round(rate, 3) for rate in run.tally.rates],
        "under_way": len(run.feeder.under_way) if run.feeder else 0,
        "places": dict(run.feeder.places) if run.feeder else {},
        "ready_engines": dict(run.feeder.engines) if run.feeder else {},
        "trouble": run.feeder.trouble if run.feeder else "",
        "asked": sorted(run.models_under_way()),
    }


def _tell_tally(tally: Tally) -> dict[str, Any]:
    counted = {
        each.name: getattr(tally, each.name)
        for each in fields(tally)
        if isinstance(getattr(tally, each.name), (int, Counter))
    }
    return counted | {
        "models": {name: asdict(each) for name, each in tally.models.items()},
        "slowest": list(tally.slowest),
        "longest": list(tally.longest),
    }


@dataclass(frozen=True, slots=True)
class WindowView:
    """What a run has under way, as ``Feeder`` tells it."""

    under_way: range
    places: Mapping[str, int]
    engines: Mapping[str, tuple[int, int]]
    trouble: str


class RunView:
    """A run that another process carries out, as ``BatchRun`` tells of itself."""

    tally: Tally
    feeder: WindowView | None

    def __init__(self, found: HostedRun) -> None:
        self.paths = BatchPaths(Path(found.run.output))
        self.update(found)

    def update(self, found: HostedRun, trouble: str = "") -> None:
        """Take over what is known now; ``trouble`` is why it does not get on."""
        told = found.progress
        self.tally = _read_tally(told, found.run.rows, str(self.paths.errors))
        self.feeder = WindowView(
            range(int(told.get("under_way", 0))),
            told.get("places", {}),
            told.get("ready_engines", {}),
            trouble or str(told.get("trouble", "")),
        )
        self._asked = set(told.get("asked", ()))

    def models_under_way(self) -> set[str]:
        """The models that rows are under way to."""
        return self._asked


def _read_tally(told: Mapping[str, Any], rows: int, errors: str) -> Tally:
    tally = Tally(rows)
    known = {each.name for each in fields(tally)} & told.keys()
    for name in known:
        kind = type(getattr(tally, name))
        if kind in (int, Counter):
            setattr(tally, name, kind(told[name]))
    models: Mapping[str, Any] = told.get("models", {})
    tally.models = {name: decode(ModelTally, each) for name, each in models.items()}
    tally.examples = {fault: f"told in {errors}" for fault in tally.faults}
    tally.slowest = [tuple(each) for each in told.get("slowest", ())]
    tally.longest = [tuple(each) for each in told.get("longest", ())]
    rates = [round(_RATE_SECONDS * rate) for rate in told.get("rates", (0, 0, 0))]
    tally.take_rates(_RATE_SECONDS, (rates[0], rates[1], rates[2]))
    return tally
