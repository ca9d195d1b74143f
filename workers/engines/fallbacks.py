"""Where requests go whose model is down: to its fallback, or back with an error.

Only while no engine of this host can take them: control looks now and then, a worker
knows its own engines better. Messages stay in their own model's queue until a worker
takes them, so that those which still wait when the model is back go to it again.
"""

from collections.abc import Mapping

from celery.utils.log import get_logger

from modelserver.messaging.catalogue import Down, read_down
from workers.engines.roster import Roster

logger = get_logger(__name__)

#: Requests of a model that is down which a worker holds at a time, to answer them with
#: an error.
REFUSED_AT_ONCE = 64


class Fallbacks:
    """The models that are down, and what their requests do. Lives on the loop."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self._text = ""
        self._down: Mapping[str, Down] = {}

    def update(self, text: str) -> None:
        """Take over which models are down, as control published it; "" is none."""
        if text == self._text:
            return
        down = {k: v for k, v in read_down(text).items() if v.then != "wait"}
        for name in sorted(down.keys() - self._down.keys()):
            each = down[name]
            what = f"go to {each.fallback}" if each.fallback else "fail"
            logger.warning("%s is down: its requests %s", name, what)
        for name in sorted(self._down.keys() - down.keys()):
            logger.warning("%s is down no longer", name)
        self._text, self._down = text, down

    def models(self) -> frozenset[str]:
        """Models that are down and whose requests this worker can take."""
        usable = self.roster.models()
        return frozenset(
            name
            for name, down in self._down.items()
            if down.then == "fail" or down.fallback in usable
        )

    def find_down(self, model: str) -> Down | None:
        """What a model's requests do while it is down; None where it serves here."""
        down = self._down.get(model)
        return None if down is None or self.roster.is_served(model) else down

    def model_for(self, model: str) -> str:
        """The model whose engines get a model's requests: itself or its fallback."""
        down = self.find_down(model)
        return down.fallback if down and down.fallback else model
