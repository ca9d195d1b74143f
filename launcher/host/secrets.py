"""What engines are given and no store holds: values of environments, and API keys.

The values come from this host's fleet file. An engine's key is made at its start and
given to it by its environment.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import yarl

from launcher.engine_types import Launch, adapter
from modelserver.errors import ConfigurationError
from modelserver.fleet.file import Fleet, read_fleet
from modelserver.keyring import Keyring
from modelserver.missing_files import describe_missing
from modelserver.settings import secret
from modelserver.values import EngineSpec, ModelSpec

_log = logging.getLogger(__name__)


class Secrets:
    """Puts values in place of the fingerprints of an applied fleet.

    The fleet file is read again at each start, so it is enough to correct it.
    """

    def __init__(self, fleet: Fleet, fleet_file: Path) -> None:
        self._fleet = fleet
        self._file = fleet_file

    def known(self, model: ModelSpec, engine: str = "") -> Mapping[str, str]:
        """The variables of the model for which this host has a value.

        Those of an engine that has some of its own go before.
        """
        if not model.environment:
            return {}
        own = self._own(model.name, engine)
        return {
            name: own[name] if name in own else os.environ[name]
            for name in model.environment
            if name in own or name in os.environ
        }

    def fill(self, model: ModelSpec, spec: EngineSpec) -> ModelSpec:
        """The model as one of its engines is started: with what is the engine's own.

        Raises ConfigurationError where a value is missing.
        """
        model = dataclasses.replace(
            model,
            extra_args=(*model.extra_args, *spec.extra_args),
            environment={**model.environment, **spec.environment},
        )
        values = self.known(model, spec.id)
        missing = sorted(model.environment.keys() - values.keys())
        if missing:
            error = ConfigurationError(
                f'model "{model.name}" needs the environment variable '
                f"{', '.join(missing)}, whose value is neither in {self._file} on this "
                "host nor in the launcher's environment; put it into that file, then "
                "relaunch the engine"
            )
            error.may_come = bool(describe_missing(str(self._file)))
            raise error
        return dataclasses.replace(model, environment=values)

    def _own(self, model: str, engine: str) -> Mapping[str, str]:
        try:
            if self._file.is_file():
                self._fleet = read_fleet(self._file)
        except ConfigurationError as error:
            _log.warning("%s; engines get the environments of before", error)
        sections = {section.name: section for section in self._fleet.models}
        of_model = sections[model].environment if model in sections else {}
        pins = {pin.id: pin for pin in self._fleet.pins()}
        return {**of_model, **(pins[engine].environment if engine in pins else {})}


def with_key(launch: Launch, model: ModelSpec, url: str, keys: Keyring) -> Launch:
    """The launch with a new key, which this host's worker finds by the engine's URL."""
    address = yarl.URL(url).authority
    variable = adapter(model.engine).key_variable(model)
    if not variable:
        keys.forget(address)
        return launch
    key = keys.renew(address)
    return dataclasses.replace(
        launch, environment={**launch.environment, variable: key}
    )


def lend_key(model: ModelSpec, url: str, keys: Keyring) -> None:
    """Let this host's worker find the key of an engine that somebody else runs.

    Raises ConfigurationError where the launcher's environment does not have it.
    """
    if model.api_key_env:
        keys.write(yarl.URL(url).authority, secret(model.api_key_env))


def forget_key(url: str, keys: Keyring) -> None:
    """Remove the key of an engine that has ended, which opens nothing any more."""
    try:
        keys.forget(yarl.URL(url).authority)
    except OSError as error:
        _log.warning("the key of the engine that was at %s stays: %s", url, error)
