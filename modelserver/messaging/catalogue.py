"""Which models a client may ask for: from the fleet file, or from the store.

Without pydantic: a pipeline that only sends requests need not load it.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from modelserver.decoding import decode
from modelserver.errors import UnknownModelError
from modelserver.values import Json, Kind

if TYPE_CHECKING:
    from modelserver.fleet.file import Fleet

#: What a model's requests may do while it is down.
ADVICE = ("wait", "fail", "fallback")
#: What models are asked for.
KINDS = frozenset(Kind)


def catalogue(fleet: "Fleet") -> dict[str, Any]:
    """The catalogue of a fleet as JSON, for ``store.fleet.publish_fleet``.

    Shape: ``{"models": [{"name", "kind", "context_length", "fallback", "sampling",
    "path", "extra_args", "command", "adapters"}], "defaults": {"completion",
    "embedding", "deadline_seconds", "result_expires_seconds"}}``.
    """
    fields = {*CatalogueEntry.__dataclass_fields__, "adapters"}
    return {
        "models": [
            model.model_dump(mode="json", include=fields) for model in fleet.models
        ],
        "defaults": fleet.defaults.model_dump(mode="json"),
    }


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model, as a client sees it."""

    name: str
    kind: Kind
    #: Tokens of prompt and answer together, None where the fleet file does not say.
    context_length: int | None = None
    #: The model that may take its requests while it is down.
    fallback: str = ""
    #: Parameters that every request gets unless it says otherwise.
    sampling: Mapping[str, Json] = field(default_factory=dict)
    #: What its engines load, and with which words they are started.
    path: str = ""
    extra_args: Sequence[str] = ()
    command: Sequence[str] = ()
    #: The model whose engines answer for this adapter, "" for a model of its own.
    base: str = ""

    @property
    def queue(self) -> str:
        """Where its requests go."""
        return self.base or self.name


@dataclass(frozen=True, slots=True)
class Down:
    """A model that no engine can answer for, and what its requests do meanwhile."""

    model: str
    #: "wait", "fail", or "fallback".
    then: str = "wait"
    #: The model that gets its requests, "" for none.
    fallback: str = ""
    #: Why it is down.
    reason: str = ""
    #: Since when, in seconds since the epoch.
    since: float = 0.0

    @property
    def text(self) -> str:
        """What a caller reads whose request is not to wait."""
        since = datetime.fromtimestamp(self.since, timezone.utc)
        return (
            f"{self.model} has been down since {since:%Y-%m-%d %H:%M:%S} UTC "
            f"({self.reason}), and the "
            'fleet file says when_down = "fail"; see `modelserver why '
            f"{self.model}`, and send the request again when it is back"
        )


def read_down(text: str) -> dict[str, Down]:
    """The models that are down, from what control published; "" is none.

    What another version published and cannot be read keeps no request from a model.
    """
    found = {}
    try:
        values = json.loads(text or "{}")
    except ValueError:
        values = None
    for name, each in values.items() if isinstance(values, dict) else ():
        with suppress(TypeError, AttributeError):
            if each.get("standing") == "down" and each.get("then", "wait") in ADVICE:
                found[name] = decode(Down, {**each, "model": name})
    return found


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models of a fleet, and which of them a request gets.

    >>> qwen = CatalogueEntry("qwen3-8b", Kind.COMPLETION)
    >>> Catalogue((qwen,)).pick(Kind.COMPLETION)
    'qwen3-8b'
    """

    models: tuple[CatalogueEntry, ...] = ()
    #: The section ``defaults`` of the fleet file.
    defaults: Mapping[str, Json] = field(default_factory=dict)
    #: By name: the models that are down.
    down: Mapping[str, Down] = field(default_factory=dict)
    #: What a request is told where there is no fleet whose models these are, else "".
    no_fleet: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Catalogue":
        """The reverse of ``catalogue``; ignores keys of a newer version."""
        names = CatalogueEntry.__dataclass_fields__
        entries = []
        for model in values["models"]:
            if model["kind"] not in KINDS:
                continue  # Only a newer version can ask for it.
            known = {key: value for key, value in model.items() if key in names}
            known |= {
                key: tuple(known.get(key, ())) for key in ("extra_args", "command")
            }
            entry = CatalogueEntry(**{**known, "kind": Kind(known["kind"])})
            entries.append(entry)
            for each in model.get("adapters", ()):
                path = f"{entry.path} {each['path']}"
                adapter = replace(entry, name=each["name"], path=path, base=entry.name)
                entries.append(adapter)
        return cls(tuple(entries), dict(values["defaults"]))

    def with_down(self, down: Mapping[str, Down]) -> "Catalogue":
        """The same models, of which these are down."""
        return replace(self, down=down)

    def entry(self, name: str) -> CatalogueEntry | None:
        """The model of this name."""
        return next((entry for entry in self.models if entry.name == name), None)

    def queue(self, name: str) -> str:
        """The queue of a model's requests: its own, for an adapter its base's."""
        entry = self.entry(name)
        return entry.queue if entry else name

    def pick(self, kind: Kind, model: str | None = None) -> str:
        """The name of the model that a request of this kind goes to.

        Raises UnknownModelError, which says which names there are.
        """
        if self.no_fleet:
            raise UnknownModelError(self.no_fleet)
        names = [entry.name for entry in self.models if entry.kind is kind]
        name = model or str(self.defaults.get(kind.value) or "")
        if name in names:
            return name
        if name:
            raise UnknownModelError(self._unknown(kind, name, names))
        bases = [name for name in names if self.queue(name) == name]
        if len(bases) == 1:
            return bases[0]
        raise UnknownModelError(_undecided(kind, bases))

    def _unknown(self, kind: Kind, name: str, names: list[str]) -> str:
        there_are = f"{kind} models: {', '.join(sorted(names)) or 'none'}"
        other = self.entry(name)
        if other:
            return f'model "{name}" is for {other.kind}, not for {kind}; {there_are}'
        close = difflib.get_close_matches(name, names, n=1)
        hint = f'did you mean "{close[0]}"? ' if close else ""
        return f'the fleet has no model "{name}"; {hint}{there_are}'


def _undecided(kind: Kind, names: list[str]) -> str:
    if not names:
        return (
            f"the fleet has no {kind} model; add one to the fleet file: "
            f'[[models]] with kind = "{kind}"'
        )
    return (
        f"the fleet has several {kind} models and none is the default: "
        f'{", ".join(sorted(names))}; say model="{sorted(names)[0]}" or set '
        f"defaults.{kind} in the fleet file"
    )
