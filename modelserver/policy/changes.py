"""What a changed fleet file means for the engines that run. Pure.

Two fleets are compared; what comes out says which engines start, stop and restart, and
which changes take effect without that. A model's ``environment`` is compared by
whatever stands for its values, and never shown.
"""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelserver.values import EXTERNAL, EngineSpec, Json, ModelSpec, engine_id

#: Engines of this type get their limits by their own command.
COMMAND = "command"
#: Fields of a model that take effect while its engines run. All others, and those that
#: are yet to come, restart them.
AT_ONCE = frozenset(
    {
        "name",
        "min_engines",
        "max_engines",
        "start_seconds",
        "drain_seconds",
        "idle_seconds",
        "sampling",
        "fallback",
        "when_down",
        "down_after_seconds",
    }
)
#: The same for engines of type ``command``, beyond those above.
COMMAND_AT_ONCE = frozenset({"context_length", "max_running", "interpreter"})
#: Fields that are tables, compared entry by entry.
SECRET_TABLE = "environment"
#: Settings that a program reads when it starts, and which program that is.
AT_START = {
    "rules.steer_seconds": "beat",
    "rules.events_per_second": "a worker",
    "rules.show_prompts": "a worker or a client",
    "defaults.result_expires_seconds": "a worker",
}
#: Longer values are cut in messages.
SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One key of the fleet file with another value; None stands for none."""

    name: str
    before: Json
    after: Json

    def __str__(self) -> str:
        if self.name.startswith(f"{SECRET_TABLE}."):
            if self.before is None:
                return f"{self.name} was added"
            return f"{self.name} {'was removed' if self.after is None else 'changed'}"
        before, after = _tails(self.before, self.after)
        return f"{self.name} changed from {_show(before)} to {_show(after)}"


def _tails(before: Json, after: Json) -> tuple[Json, Json]:
    """Two long lists from where they differ, so that a cut does not hide that."""
    if not (isinstance(before, (list, tuple)) and isinstance(after, (list, tuple))):
        return before, after
    pairs = zip(before, after, strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    if same < 2:
        return before, after
    return ["...", *before[same:]], ["...", *after[same:]]


def _show(value: Json) -> str:
    if value is None or value == "":
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, default=list)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def sentence(changes: Iterable[FieldChange]) -> str:
    """Changes as the reason of a restart: "context_length changed from 1 to 2"."""
    return ", ".join(map(str, changes))


def compare(old: ModelSpec, new: ModelSpec) -> tuple[FieldChange, ...]:
    """The fields of a model that differ, ``environment`` by its variables."""
    found: list[FieldChange] = []
    for name in (each.name for each in dataclasses.fields(ModelSpec)):
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if name == SECRET_TABLE:
            found += _entries(name, before, after)
        else:
            found.append(FieldChange(name, before, after))
    return tuple(found)


def _entries(
    table: str, before: Mapping[str, Json], after: Mapping[str, Json]
) -> list[FieldChange]:
    return [
        FieldChange(f"{table}.{key}", before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def restarts(old: ModelSpec, new: ModelSpec) -> tuple[FieldChange, ...]:
    """The changes that an engine started as ``old`` must be restarted for."""
    if old.engine == new.engine == EXTERNAL:
        return ()
    command = old.engine == new.engine == COMMAND
    harmless = AT_ONCE | COMMAND_AT_ONCE if command else AT_ONCE
    return tuple(each for each in compare(old, new) if each.name not in harmless)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A fleet as plain values; ``settings`` maps "section.key" to its value."""

    models: tuple[ModelSpec, ...] = ()
    pins: tuple[EngineSpec, ...] = ()
    settings: Mapping[str, Json] = field(default_factory=dict)

    def engines(self) -> dict[str, EngineSpec]:
        """The engines that it asks for, by id; an empty host means any."""
        return self._engines({each.name: each.min_engines for each in self.models})

    def engines_allowed(self) -> dict[str, EngineSpec]:
        """The same with those that it lets control add, and keep while they work."""
        return self._engines({each.name: each.max_engines for each in self.models})

    def _engines(self, numbers: Mapping[str, int]) -> dict[str, EngineSpec]:
        found = {pin.id: pin for pin in self.pins}
        pinned = Counter(pin.model for pin in self.pins)
        for model in self.models:
            if model.engine != EXTERNAL:
                for number in range(pinned[model.name], numbers[model.name]):
                    name = engine_id(model.name, number)
                    found[name] = EngineSpec(name, model.name, "")
        return found


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What becomes of one model and its engines. ``verb``: added, removed, changed.

    ``because`` are the changes that its engines restart for, ``at_once`` the others.
    """

    name: str
    verb: str
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    because: tuple[FieldChange, ...] = ()
    at_once: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineChange:
    """One engine that stays and gets another place, so it restarts."""

    engine: str
    model: str
    because: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs between two fleets; false where nothing does."""

    models: tuple[ModelChange, ...] = ()
    engines: tuple[EngineChange, ...] = ()
    settings: tuple[FieldChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.models or self.engines or self.settings)

    @property
    def removed(self) -> tuple[str, ...]:
        """The models that leave the fleet."""
        return tuple(each.name for each in self.models if each.verb == "removed")

    @property
    def touched(self) -> frozenset[str]:
        """The models of which an engine starts, stops or restarts."""
        moved = {e.name for e in self.models if e.start or e.stop or e.restart}
        return frozenset(moved | {each.model for each in self.engines})

    def summary(self) -> str:
        """ "start 1, stop 1, restart 2 engines", or that no engine is touched."""
        places = {each.engine for each in self.engines}
        counts = {
            "start": sum(len(each.start) for each in self.models),
            "stop": sum(len(each.stop) for each in self.models),
            "restart": len(places.union(*(each.restart for each in self.models))),
        }
        parts = [f"{verb} {count}" for verb, count in counts.items() if count]
        if not parts:
            return "no engine starts, stops or restarts"
        total = sum(counts.values())
        return f"{', '.join(parts)} engine{'s' * (total != 1)}"

    def lines(self) -> list[str]:
        """One line for each thing that changes, for people."""
        found = [line for change in self.models for line in _model_lines(change)]
        found += [
            f"engine {each.engine}: restarts because {sentence(each.because)}"
            for each in self.engines
        ]
        for each in self.settings:
            reader = AT_START.get(each.name)
            when = f"takes effect when {reader} is started" if reader else "at once"
            found.append(f"{each} ({when})")
        return found


def changes(old: FleetSpec, new: FleetSpec) -> Changes:
    """What takes the fleet ``old`` to ``new``."""
    after, allowed = new.engines(), new.engines_allowed()
    # What control may keep is not stopped by the change.
    before = {
        name: spec
        for name, spec in old.engines().items()
        if name in after or name not in allowed
    }
    models = {spec.name: spec for spec in old.models}
    news = {spec.name: spec for spec in new.models}
    found = (
        _model_change(name, models.get(name), news.get(name), before, after)
        for name in [*news, *(name for name in models if name not in news)]
    )
    moved = [
        EngineChange(name, spec.model, _place_changes(before[name], spec))
        for name, spec in after.items()
        if name in before and before[name] != spec and spec.model in models
    ]
    return Changes(
        tuple(change for change in found if change is not None),
        tuple(moved),
        tuple(
            FieldChange(key, old.settings.get(key), new.settings.get(key))
            for key in sorted(old.settings.keys() | new.settings.keys())
            if old.settings.get(key) != new.settings.get(key)
        ),
    )


def _model_change(
    name: str,
    old: ModelSpec | None,
    new: ModelSpec | None,
    before: Mapping[str, EngineSpec],
    after: Mapping[str, EngineSpec],
) -> ModelChange | None:
    had = [key for key, spec in before.items() if spec.model == name]
    gets = [key for key, spec in after.items() if spec.model == name]
    start = tuple(key for key in gets if key not in had)
    stop = tuple(key for key in had if key not in gets)
    if old is None:
        return ModelChange(name, "added", start=start)
    if new is None:
        return ModelChange(name, "removed", stop=stop)
    because = restarts(old, new)
    at_once = tuple(each for each in compare(old, new) if each not in because)
    if not (because or at_once or start or stop):
        return None
    stay = tuple(key for key in gets if key in had)
    restart = stay if because else ()
    return ModelChange(name, "changed", start, stop, restart, because, at_once)


def _model_lines(change: ModelChange) -> list[str]:
    head = f"model {change.name}"
    what = [change.verb] if change.verb != "changed" else []
    if change.start:
        what.append(f"starts {_names(change.start)}")
    if change.stop:
        what.append(f"stops {_names(change.stop)}")
    if change.because:
        who = _names(change.restart) if change.restart else "no engine"
        what.append(f"restarts {who} because {sentence(change.because)}")
    if change.at_once:
        what.append(f"{sentence(change.at_once)} (at once)")
    return [f"{head}: {each}" for each in what]


def _names(engines: tuple[str, ...]) -> str:
    return ", ".join(engines)


def _place_changes(old: EngineSpec, new: EngineSpec) -> tuple[FieldChange, ...]:
    return tuple(
        FieldChange(name, getattr(old, name), getattr(new, name))
        for name in ("host", "gpus", "port", "url")
        if getattr(old, name) != getattr(new, name)
    )
