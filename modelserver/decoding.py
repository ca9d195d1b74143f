"""Plain JSON values back into the frozen values that they were made from. Pure.

A field that an older version did not know has its default; one that a newer version
added is ignored.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_Builder = Callable[[Any], Any]

#: What JSON may have for a plain value: it knows one kind of number.
PLAIN = {str: (str,), bool: (bool, int), int: (int, float), float: (int, float)}


def decode(kind: type[_T], value: Any) -> _T:
    """A value of a type of dataclasses, tuples, mappings, enums, paths, plain values.

    Raises TypeError where a field without a default is missing or a plain value is of
    another type, and ValueError where an enum does not know its value.

    >>> from modelserver.values import EngineSpec
    >>> decode(EngineSpec, {"id": "m-0", "model": "m", "host": "h", "gpus": [1]}).gpus
    (1,)
    """
    build: Callable[[Any], _T] = _builder(kind)  # type: ignore[arg-type]
    return build(value)


@cache
def _builder(kind: Hashable) -> _Builder:
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_builder(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return _tuple_builder(arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_builder(_builder(arguments[1]))
    if origin in (Union, UnionType):
        (inner,) = (_builder(each) for each in arguments if each is not type(None))
        return lambda value: None if value is None else inner(value)
    if isinstance(kind, type) and issubclass(kind, (Enum, Path)):
        return kind
    if isinstance(kind, type) and kind in PLAIN:
        return _plain_builder(kind, PLAIN[kind])
    return lambda value: value


def _plain_builder(kind: type, accepted: tuple[type, ...]) -> _Builder:
    def build(value: Any) -> Any:
        if not isinstance(value, accepted):
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return value

    return build


def _mapping_builder(inner: _Builder) -> _Builder:
    def build(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r} is no object")
        return {key: inner(each) for key, each in value.items()}

    return build


def _tuple_builder(arguments: tuple[Any, ...]) -> _Builder:
    if arguments[1:] == (...,):
        inner = _builder(arguments[0])
        return lambda value: tuple(inner(each) for each in value)
    builders = [_builder(each) for each in arguments]
    return lambda value: tuple(
        build(each) for build, each in zip(builders, value, strict=True)
    )


def _dataclass_builder(kind: type) -> _Builder:
    hints = get_type_hints(kind)
    builders = {each.name: _builder(hints[each.name]) for each in fields(kind)}

    def build(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"{kind.__name__} is made from an object, not {value!r}")
        known = value.keys() & hints.keys()
        return kind(**{name: builders[name](value[name]) for name in known})

    return build
