"""The API key of each engine: made at its start, given to it by its environment."""

from dataclasses import replace

import yarl

from launcher.engine_types import Launch, adapter
from launcher.host.tools import Tools
from modelserver.settings import secret
from modelserver.values import ModelSpec


def with_key(launch: Launch, model: ModelSpec, url: str, tools: Tools) -> Launch:
    """The launch with a new key, which this host's worker finds by the engine's URL."""
    address = yarl.URL(url).authority
    variable = adapter(model.engine).key_variable(model)
    if not variable:
        tools.keys.forget(address)
        return launch
    key = tools.keys.renew(address)
    return replace(launch, environment={**launch.environment, variable: key})


def lend_key(model: ModelSpec, url: str, tools: Tools) -> None:
    """Let this host's worker find the key of an engine that somebody else runs.

    Raises ConfigurationError where the launcher's environment does not have it.
    """
    if model.api_key_env:
        tools.keys.write(yarl.URL(url).authority, secret(model.api_key_env))


def forget_key(url: str, tools: Tools) -> None:
    """Remove the key of an engine that has ended."""
    tools.keys.forget(yarl.URL(url).authority)
