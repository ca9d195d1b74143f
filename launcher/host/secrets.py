"""Values of models' environments, which stand in no store: from this host's file."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from modelserver.errors import ConfigurationError
from modelserver.fleet import Fleet, read_fleet
from modelserver.values import ModelSpec

_log = logging.getLogger(__name__)


class Secrets:
    """Puts values in place of the fingerprints of an applied fleet.

    The fleet file is read again for each start, so that a corrected one is enough.
    """

    def __init__(self, fleet: Fleet, fleet_file: Path) -> None:
        self._fleet = fleet
        self._file = fleet_file

    def known(self, model: ModelSpec) -> Mapping[str, str]:
        """Those variables of the model that this host has a value for."""
        if not model.environment:
            return {}
        own = self._own(model.name)
        return {
            name: own[name] if name in own else os.environ[name]
            for name in model.environment
            if name in own or name in os.environ
        }

    def fill(self, model: ModelSpec) -> ModelSpec:
        """The model with its values. Raises ConfigurationError where one is missing."""
        values = self.known(model)
        missing = sorted(model.environment.keys() - values.keys())
        if missing:
            raise ConfigurationError(
                f'model "{model.name}" needs the environment variable '
                f"{', '.join(missing)}, whose value is neither in {self._file} on this "
                "host nor in the launcher's environment; put it into that file, then "
                "relaunch the engine"
            )
        return dataclasses.replace(model, environment=values)

    def _own(self, model: str) -> Mapping[str, str]:
        try:
            if self._file.is_file():
                self._fleet = read_fleet(self._file)
        except ConfigurationError as error:
            _log.warning("values of environments are those of before: %s", error)
        sections = {section.name: section for section in self._fleet.models}
        return sections[model].environment if model in sections else {}
