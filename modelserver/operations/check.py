"""One thing that ``doctor`` looked at."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    #: The thing, for example "port 30000".
    what: str
    #: What was found of it.
    fact: str
    #: What to do about it; "" where it is in order.
    remedy: str = ""
    #: Whether it can be meant so, and is no problem for now.
    is_note: bool = False

    @property
    def is_problem(self) -> bool:
        """Whether something stands in the fleet's way."""
        return bool(self.remedy) and not self.is_note
