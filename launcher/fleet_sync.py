"""Keeps this launcher and the store in agreement on the fleet in force."""

import json
import logging
from dataclasses import replace

from launcher.store_link import StoreLink, StoreView
from modelserver.control.applied_fleet import Applied, parse, sealed, spec_of
from modelserver.errors import ConfigurationError
from modelserver.policy.changes import changes
from modelserver.settings import Settings
from modelserver.values import EngineSpec, ModelSpec

_log = logging.getLogger(__name__)


class FleetSync:
    """The fleet in force as this launcher knows it, for a store that may lose it."""

    def __init__(self, applied: Applied, settings: Settings, link: StoreLink) -> None:
        self.applied = applied
        self.models: dict[str, ModelSpec] = {}
        self.pins: dict[str, EngineSpec] = {}
        self._settings = settings
        self._link = link
        #: What was last said of a fleet that this host does not obey.
        self._refused = ""
        self._accept(applied)

    def _accept(self, applied: Applied) -> None:
        self.applied = applied
        self.models = {spec.name: spec for spec in applied.fleet.specs()}
        self.pins = {pin.id: pin for pin in applied.fleet.pins()}
        self._link.lease_seconds = applied.fleet.rules.lease_seconds
        self._link.fleet_version = applied.version
        if applied.is_signed:
            self._settings.fleet_key.note_version(applied.version)

    @property
    def settings(self) -> Settings:
        """The settings with the fleet in force, the file's while none is known."""
        if not self.applied.version:
            return self._settings
        return replace(self._settings, fleet=self.applied.fleet)

    async def restore(self, view: StoreView) -> None:
        """Write the fleet to a store that has lost it, or has an earlier version.

        Raises StoreUnreachableError.
        """
        own = self.applied
        if not own.version and not view.fleet:
            # It was away when this launcher started, and is empty.
            await self._link.provide_fleet(self._settings)
        if view.fleet == own.text:
            return
        seen = _version_of(view.fleet)
        if seen < own.version and await self._link.publish_fleet(own.text, seen):
            _log.warning("fleet version=%d written to the store again", own.version)

    def update(self, view: StoreView) -> bool:
        """Go by the store's fleet; whether that is another one than before."""
        text = view.fleet
        if text in ("", self.applied.text):
            return False
        try:
            applied = parse(text, self._settings)
        except ConfigurationError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                _log.error(
                    "the store's fleet is not valid: %s; this host keeps version %d",
                    *(error, self.applied.version),
                )
            return False
        self._refused = ""
        if applied.version < self.applied.version:
            return False
        self._accept(applied)
        _log.info("fleet version=%d applied by %s", applied.version, applied.by)
        return True


def _version_of(text: str) -> int:
    """The version of a fleet that need not be one of ours, 0 for none."""
    try:
        return int(json.loads(text)["version"])
    except (ValueError, LookupError, TypeError):
        return 0


def warn_of_no_key(applied: Applied) -> None:
    """Log that anybody who can write to Redis can run programs here."""
    if not applied.is_signed:
        _log.warning(
            "the fleet in force (version %d) is not signed, so whoever can write to "
            "Redis can run programs on this host; `modelserver apply` says how to give "
            "it a key",
            applied.version,
        )


def warn_of_differences(applied: Applied, settings: Settings) -> None:
    """Log what in this host's fleet file differs from the fleet that was applied."""
    own = spec_of(sealed(settings.fleet, applied.salt))
    lines = changes(applied.spec(), own).lines()
    if not settings.fleet_file.is_file() or not lines:
        return
    _log.warning(
        "%s differs from the fleet in force (version %d, applied by %s), which counts; "
        "`modelserver apply` would change that to what the file says: %s",
        *(settings.fleet_file, applied.version, applied.by, "; ".join(lines)),
    )
