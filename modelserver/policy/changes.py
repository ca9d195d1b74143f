"""What a changed fleet file means for the engines that run. Pure.

Two fleets are compared: which engines start, stop and restart, and which changes take
effect without that. The values of a model's ``environment`` may be hashes; they are
compared and never shown.
"""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelserver.adapters import LoraAdapter
from modelserver.python310 import StrEnum
from modelserver.schedules import ScheduledWindow
from modelserver.values import EXTERNAL, EngineSpec, Json, ModelSpec, engine_id

#: One of every 4 engines of a model may be away for a restart at a time.
_ENGINES_PER_RESTART = 4
#: The type of engines that get their limits by their own command.
COMMAND = "command"
#: Fields of a model that take effect while its engines run; all others restart them.
AT_ONCE = frozenset(
    {
        "name",
        "min_engines",
        "max_engines",
        "priority",
        "schedule",
        "itl_seconds",
        "start_seconds",
        "load_in_turns",
        "drain_seconds",
        "idle_seconds",
        "sampling",
        "default_max_tokens",
        "fallback",
        "when_down",
        "down_after_seconds",
    }
)
#: Further such fields of engines of type ``command``.
COMMAND_AT_ONCE = frozenset({"context_length", "max_running", "interpreter"})
#: The field that is compared variable by variable, as its values are secret.
SECRET_TABLE = "environment"
#: Settings that are read only when a program starts, and that program.
AT_START = {
    "rules.steer_seconds": "beat",
    "rules.events_per_second": "a worker",
    "rules.show_prompts": "a worker or a client",
    "defaults.result_expires_seconds": "a worker",
}
#: The characters after which a value is cut in messages.
SHOWN_CHARACTERS = 60


def most_down(engines: int) -> int:
    """How many of a model's engines may be away for a restart at once, at least one."""
    return max(1, engines // _ENGINES_PER_RESTART)


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One key of the fleet file with another value."""

    name: str
    #: The value before, None for none.
    before: Json
    #: The value after, None for none.
    after: Json
    #: Whether the values must not be shown.
    secret: bool = False

    def __str__(self) -> str:
        if self.secret:
            if self.before is None:
                return f"{self.name} was added"
            return f"{self.name} {'was removed' if self.after is None else 'changed'}"
        before, after = _tails(self.before, self.after)
        return f"{self.name} changed from {_show(before)} to {_show(after)}"


def _tails(before: Json, after: Json) -> tuple[Json, Json]:
    """Two lists without their common beginning, so that a cut hides no difference."""
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
    text = value if isinstance(value, str) else json.dumps(value, default=_plain)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _plain(value: Json) -> Json:
    """What JSON does not know: values of ours in words, tables as they are."""
    ours = (ScheduledWindow, LoraAdapter)
    return str(value) if isinstance(value, ours) else list(value)


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
            found += _variables(name, before, after)
        else:
            found.append(FieldChange(name, before, after))
    return tuple(found)


def _variables(
    table: str, before: Mapping[str, Json], after: Mapping[str, Json]
) -> list[FieldChange]:
    return [
        FieldChange(f"{table}.{key}", before.get(key), after.get(key), secret=True)
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
    """A fleet as plain values."""

    models: tuple[ModelSpec, ...] = ()
    pins: tuple[EngineSpec, ...] = ()
    #: The values of the other sections, by "section.key".
    settings: Mapping[str, Json] = field(default_factory=dict)

    def engines(self) -> dict[str, EngineSpec]:
        """The engines that it asks for, by id; host "" is any."""
        return self._engines({each.name: each.min_engines for each in self.models})

    def engines_allowed(self) -> dict[str, EngineSpec]:
        """The engines that it asks for, and those that control may add, by id."""
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


class ChangeVerb(StrEnum):
    """What happens to a model of the fleet file."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What becomes of one model and its engines."""

    name: str
    verb: ChangeVerb
    #: The ids of the engines that start.
    start: tuple[str, ...] = ()
    #: The ids of those that stop.
    stop: tuple[str, ...] = ()
    #: The ids of those that restart.
    restart: tuple[str, ...] = ()
    #: The changes for which they restart.
    because: tuple[FieldChange, ...] = ()
    #: The changes that take effect without that.
    at_once: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineChange:
    """One engine that gets another place and so restarts."""

    engine: str
    model: str
    because: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class EngineMove:
    """One engine whose host is no longer part of the fleet."""

    engine: str
    model: str
    host: str


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs between two fleets; falsy where nothing does."""

    models: tuple[ModelChange, ...] = ()
    engines: tuple[EngineChange, ...] = ()
    settings: tuple[FieldChange, ...] = ()
    #: The engines that go elsewhere because their hosts are left out.
    moves: tuple[EngineMove, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.models or self.engines or self.settings)

    @property
    def removed(self) -> tuple[str, ...]:
        """The models that leave the fleet."""
        return tuple(
            each.name for each in self.models if each.verb is ChangeVerb.REMOVED
        )

    @property
    def touched(self) -> frozenset[str]:
        """The models of which an engine starts, stops or restarts."""
        moved = {e.name for e in self.models if e.start or e.stop or e.restart}
        elsewhere = {each.model for each in self.moves}
        return frozenset(moved | elsewhere | {each.model for each in self.engines})

    def summary(self) -> str:
        """The counts in words, as "start 1, stop 1, restart 2 engines"."""
        places = {each.engine for each in self.engines}
        counts = {
            "start": sum(len(each.start) for each in self.models),
            "stop": sum(len(each.stop) for each in self.models),
            "move": len({each.engine for each in self.moves} - places),
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
        found += [
            f"engine {each.engine}: leaves host {each.host}, which is not listed"
            for each in self.moves
        ]
        for each in self.settings:
            reader = AT_START.get(each.name)
            when = f"takes effect when {reader} is started" if reader else "at once"
            found.append(f"{each} ({when})")
        return found


def changes(old: FleetSpec, new: FleetSpec) -> Changes:
    """What takes the fleet ``old`` to ``new``."""
    after, allowed = new.engines(), new.engines_allowed()
    # Engines that control may keep are not stopped by the change.
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
        return ModelChange(name, ChangeVerb.ADDED, start=start)
    if new is None:
        return ModelChange(name, ChangeVerb.REMOVED, stop=stop)
    because = restarts(old, new)
    at_once = tuple(each for each in compare(old, new) if each not in because)
    if not (because or at_once or start or stop):
        return None
    stay = tuple(key for key in gets if key in had)
    restart = stay if because else ()
    return ModelChange(name, ChangeVerb.CHANGED, start, stop, restart, because, at_once)


def _model_lines(change: ModelChange) -> list[str]:
    head = f"model {change.name}"
    what = [] if change.verb is ChangeVerb.CHANGED else [change.verb.value]
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
    found = [
        FieldChange(name, getattr(old, name), getattr(new, name))
        for name in ("host", "gpus", "port", "url", "extra_args")
        if getattr(old, name) != getattr(new, name)
    ]
    return (*found, *_variables(SECRET_TABLE, old.environment, new.environment))
