"""How submitted runs stand, and who carries them out."""

from collections import Counter
from dataclasses import dataclass

from modelserver.store import Store
from modelserver.store.runs.hosted import RunState, open_ids, read_holders, read_hosted

#: What to do where runs wait and nothing carries them out.
START_BATCHES = "start it where their files are seen: modelserver batches"


@dataclass(frozen=True, slots=True)
class RunsStatus:
    """Submitted runs that have not ended."""

    running: int = 0
    waiting: int = 0
    paused: int = 0
    #: The processes of ``modelserver batches`` that live.
    processes: tuple[str, ...] = ()

    @property
    def told_waiting(self) -> str:
        """How many wait, in words."""
        several = self.waiting != 1
        return f"{self.waiting} submitted run{'s' * several} wait{'s' * (not several)}"

    @property
    def is_stuck(self) -> bool:
        """Whether runs wait and nothing carries them out."""
        return bool(self.waiting and not self.processes)


def read_runs_status(store: Store) -> RunsStatus:
    """The submitted runs of now."""
    now = store.now()
    found = Counter(each.state(now) for each in read_hosted(store, open_ids(store)))
    waiting, paused = found[RunState.WAITING], found[RunState.PAUSED]
    names = tuple(each.name for each in read_holders(store))
    return RunsStatus(found.total() - waiting - paused, waiting, paused, names)
