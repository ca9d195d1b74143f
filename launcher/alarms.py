"""Tells people what control cannot tell: that it is silent, or that Redis is away."""

import dataclasses
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path

from launcher.fleet_sync import FleetSync
from launcher.store_link import StoreLink, StoreView
from modelserver.control.alerts import tell_by_hooks
from modelserver.decoding import decode
from modelserver.policy.troubles import Trouble, TroubleKind, over
from modelserver.store.fleet.alerts import AlertRecord
from modelserver.whole_files import write_whole

_log = logging.getLogger(__name__)

#: Seconds within which a hook has ended once its time is over.
HOOK_END_SECONDS = 1.0
#: The file of a run folder that says which alert about Redis stands.
OUTAGE_FILE = "redis-outage.json"
#: What is to be done where control is silent.
START_BEAT = "start it on one host: modelserver beat (and at least one worker)"


@dataclass(frozen=True, slots=True)
class ControlSign:
    """That control has looked at the fleet."""

    #: When it says that it did, by the server's clock, which is set now and then.
    steered_at: float
    #: When that was seen here, by the monotonic clock.
    seen_at: float


class OutageNote:
    """The alert about Redis that stands, in a file: no store knows of it.

    So a launcher that starts meanwhile tells its end, and does not tell it again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> AlertRecord | None:
        """The alert, None where none stands or it cannot be read."""
        try:
            return decode(AlertRecord, json.loads(self._file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            _log.warning("%s is left aside: %s", self._file, error)
            return None

    def write(self, told: AlertRecord) -> None:
        """Note that it was told, in one step."""
        try:
            write_whole(self._file, json.dumps(dataclasses.asdict(told)))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._file, error)

    def remove(self) -> None:
        """Note that its end was told."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s cannot be removed: %s", self._file, error)


class Alarms:
    """What this launcher tells; control ends the alert of its own silence."""

    def __init__(
        self, host: str, fleet_sync: FleetSync, link: StoreLink, note: OutageNote
    ) -> None:
        self._host = host
        self._fleet_sync = fleet_sync
        self._link = link
        self._sign: ControlSign | None = None
        self._away_at: float | None = None
        self._note = note
        #: What an earlier launcher has told stands, too.
        self._told: AlertRecord | None = note.read()
        #: When it was told here, by the monotonic clock.
        self._told_at = -math.inf

    async def look(self, view: StoreView, now: float) -> None:
        """Look at what the store said just now. Raises StoreUnreachableError."""
        await self._end_outage(now, view.store_time(now))
        self._sign = follow_control(self._sign, view.steered_at, now)
        settings = self._fleet_sync.settings
        steer_seconds = settings.fleet.rules.steer_seconds
        trouble = find_control_silence(self._sign.seen_at, steer_seconds, now)
        if trouble is not None:
            await self._link.raise_alert(settings, trouble, view.store_time(now))

    def note_outage(self, fault: str, now: float, wall_time: float) -> None:
        """Take note that the store cannot be used; tells it without the store."""
        if self._away_at is None:
            self._away_at = now
        self._sign = None  # Control cannot look either.
        silence = now - self._away_at
        if self._told or silence < TroubleKind.REDIS.patience_seconds:
            return
        text = f"host {self._host} cannot use Redis: {fault}"
        kind = TroubleKind.REDIS
        self._told = AlertRecord(self._host, text, wall_time, kind, since=wall_time)
        self._told_at = now
        self._note.write(self._told)
        tell_by_hooks(self._fleet_sync.settings, self._told)

    async def _end_outage(self, now: float, wall_time: float) -> None:
        self._away_at = None
        told, settings = self._told, self._fleet_sync.settings
        hook_seconds = settings.fleet.alerts.hook_seconds + HOOK_END_SECONDS
        if told is None or now - self._told_at < hook_seconds:
            return  # No end comes before its beginning, which hooks may still be at.
        text = over(TroubleKind.REDIS, told.about)
        ended = dataclasses.replace(told, text=text, at=wall_time, event="ended")
        await self._link.tell_by_hooks(settings, ended)
        self._told = None
        self._note.remove()


def follow_control(
    before: ControlSign | None, steered_at: float, now: float
) -> ControlSign:
    """The last new sign; the first one counts as new, since it could not be heard."""
    if before is not None and before.steered_at == steered_at:
        return before
    return ControlSign(steered_at, now)


def find_control_silence(
    looked_at: float, steer_seconds: float, now: float
) -> Trouble | None:
    """What is to be told of control that was last seen to look at that time."""
    ago = now - looked_at
    kind = TroubleKind.CONTROL
    if ago < max(kind.patience_seconds, 5 * steer_seconds):
        return None
    text = (
        f"control has not looked at the fleet for {ago:.0f} s: engines are not placed, "
        f"and those that hang are not relaunched; {START_BEAT}"
    )
    return Trouble(kind, "control", text)
