"""The applied fleet that this worker refused last. Pure."""

#: A fleet that was refused is looked at again after so many seconds: this host may
#: have been given its key meanwhile.
AGAIN_SECONDS = 10.0


class FleetRefusal:
    """Remembers a refused fleet, so that it is not read at each look. Times are of the
    monotonic clock."""

    def __init__(self) -> None:
        self._fleet, self._reason, self._at = "", "", 0.0

    def stands(self, fleet: str, now: float) -> bool:
        """Whether this fleet was refused a moment ago."""
        return fleet == self._fleet and now - self._at < AGAIN_SECONDS

    def note(self, fleet: str, reason: str, now: float) -> bool:
        """It is refused now; whether for another reason than what was refused last."""
        is_news = reason != self._reason
        self._fleet, self._reason, self._at = fleet, reason, now
        return is_news

    def forget(self) -> None:
        """A fleet was taken."""
        self._fleet = self._reason = ""
