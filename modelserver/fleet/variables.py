"""The environment's variables that are laid over the fleet file.

``MODELSERVER_REDIS_URL`` is the key ``url`` of ``[redis]``, ``MODELSERVER_HOSTS`` all
of ``[[hosts]]`` in JSON.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_origin

from pydantic import BaseModel

#: How such a variable begins, in whatever case.
_PREFIX = "modelserver_"


def with_variables(fleet: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fleet file's values with the environment's laid over them."""
    merged = dict(values)
    for section, given in read_variables(fleet).items():
        filed = merged.get(section)
        if isinstance(given, dict) and isinstance(filed, dict):
            given = {**filed, **given}
        merged[section] = given
    return merged


def read_variables(fleet: type[BaseModel]) -> dict[str, Any]:
    """What the environment says, by section. Others' variables are left out."""
    found: dict[str, Any] = {}
    # A whole section comes before its keys.
    for section, key, text, _ in sorted(_variables(fleet)):
        if not key:
            found[section] = _from_json(text)
        elif isinstance(keys := found.setdefault(section, {}), dict):
            kind = _keys_of(fleet, section).get(key)
            is_many = kind is not None and get_origin(kind.annotation) in (tuple, dict)
            keys[key] = _from_json(text) if is_many else text
    return found


def find_variable(fleet: type[BaseModel], place: Sequence[str | int]) -> str:
    """The variable that says what stands at a place of the fleet; "" for none.

    A place is the section and the names and numbers below it.
    """
    names = {(section, key): name for section, key, _, name in _variables(fleet)}
    section, key = map(str, (*place, "", "")[:2])
    return names.get((section, key)) or names.get((section, ""), "")


def _variables(fleet: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """Section, key ("" for all of it), text and name of each variable that is set."""
    for variable, text in os.environ.items():
        name = variable.lower()
        if not text or not name.startswith(_PREFIX):
            continue
        section, _, key = name.removeprefix(_PREFIX).partition("_")
        # Lists of sections have no keys: MODELSERVER_ENGINES_HOME is a folder.
        if section in fleet.model_fields and (not key or _keys_of(fleet, section)):
            yield section, key, text, variable


def _keys_of(fleet: type[BaseModel], section: str) -> dict[str, Any]:
    kind = fleet.model_fields[section].annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return dict(kind.model_fields)
    return {}


def _from_json(text: str) -> Any:
    """The value; the text itself where it is no JSON, which the section refuses."""
    with suppress(ValueError):
        return json.loads(text)
    return text
