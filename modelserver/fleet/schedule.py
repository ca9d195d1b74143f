"""The part of the fleet file about when models need engines by the clock."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from modelserver.schedules import (
    DAY_MINUTES,
    ScheduledWindow,
    check_zone,
    minutes_of,
    window_of,
)


def _as_a_zone(name: str) -> str:
    return check_zone(name) if name else name


#: The name of a time zone, "" for none.
TimeZone = Annotated[str, AfterValidator(_as_a_zone)]


class ScheduleSection(BaseModel):
    """``[[models.schedule]]``: a time of the day in which a model has more engines."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    #: When it begins, as "8:00".
    start: str = Field(alias="from")
    #: When it ends, as "18:00"; "24:00" is midnight.
    to: str
    #: The days on which it begins, as "mon-fri".
    days: str = "daily"
    #: How many engines there are at least.
    min_engines: int = Field(ge=1)

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if self.window("UTC").start == DAY_MINUTES:
            raise ValueError('from = "24:00" is the end of a day; write "0:00"')
        if minutes_of(self.start) == minutes_of(self.to):
            raise ValueError(
                f'from and to are both "{self.to}"; for a whole day write '
                'from = "0:00", to = "24:00"'
            )
        return self

    def window(self, zone: str) -> ScheduledWindow:
        """The same as a plain value. Raises ValueError."""
        return window_of(self.model_dump(), zone)
