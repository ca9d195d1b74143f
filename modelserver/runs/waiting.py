"""What a run that is carried out waits for, whoever carries it out. Pure."""

from collections.abc import Iterable, Mapping, Sized
from typing import Protocol

from modelserver.runs.files.tally import Tally


class ShownWindow(Protocol):
    """What is shown of what a run has under way."""

    @property
    def under_way(self) -> Sized:
        """The rows that are under way."""

    @property
    def places(self) -> Mapping[str, int]:
        """Places of ready engines, by model."""

    @property
    def engines(self) -> Mapping[str, tuple[int, int]]:
        """By model: how many of its engines are ready, and how many there are."""

    @property
    def trouble(self) -> str:
        """Why nothing is sent or received now, "" where it is."""


class ShownRun(Protocol):
    """What is shown of a run, whoever carries it out."""

    @property
    def tally(self) -> Tally:
        """What came of its rows."""

    @property
    def feeder(self) -> ShownWindow | None:
        """What it has under way, None before its first row."""

    def models_under_way(self) -> set[str]:
        """The models that rows are under way to."""


def find_wait(run: ShownRun) -> str:
    """What a run waits for, "" where it gets on."""
    feeder = run.feeder
    if feeder is None:
        return ""
    if feeder.trouble:
        return feeder.trouble
    without = sorted(run.models_under_way() - set(feeder.places))
    if without:
        ready = (f"{count_ready(run, [name])} engines of {name}" for name in without)
        return f"{', '.join(ready)} are ready; see `modelserver why {without[0]}`"
    return ""


def count_ready(run: ShownRun, models: Iterable[str]) -> str:
    """How many engines of these models are ready: "2 of 3"."""
    engines = run.feeder.engines if run.feeder else {}
    counts = [engines.get(model, (0, 0)) for model in models]
    return f"{sum(ready for ready, _ in counts)} of {sum(there for _, there in counts)}"
