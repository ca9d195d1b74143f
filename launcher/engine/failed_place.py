"""On which GPUs an engine has failed of what others may not have."""

from dataclasses import dataclass

from modelserver.policy.lifecycle import Died

#: An engine is tried on other GPUs after two starts that died of what those may not
#: have: memory that somebody else holds.
STARTS_PER_PLACE = 2


@dataclass(frozen=True, slots=True)
class FailedPlace:
    """How often an engine has died at its start on the GPUs that it had last."""

    times: int = 0
    uuids: tuple[str, ...] = ()

    def after(self, death: Died, uuids: tuple[str, ...]) -> "FailedPlace":
        """The same after one more death; those count that may heal elsewhere."""
        if not death.may_heal:
            return self
        times = self.times + 1 if uuids == self.uuids else 1
        return FailedPlace(times, uuids)

    @property
    def given_up(self) -> tuple[str, ...]:
        """The GPUs on which it is not to be tried again, if there are others."""
        return self.uuids if self.times >= STARTS_PER_PLACE else ()
