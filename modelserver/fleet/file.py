"""The fleet file: its sections, what they must agree on, and how it is read.

Unknown keys are refused. ``MODELSERVER_REDIS_URL`` and the like (section, underscore,
key) are laid over the file.
"""

import codecs
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from typing_extensions import Self

from modelserver.errors import ConfigurationError
from modelserver.fleet.arguments import (
    find_argument_problems,
    find_placeholder_problem,
    find_variable_problems,
)
from modelserver.fleet.bounds import find_bound_problems
from modelserver.fleet.container_arguments import find_container_problems
from modelserver.fleet.nodes import host_disagreements
from modelserver.fleet.places import (
    find_engine_url_problem,
    find_host_problems,
    find_pin_problems,
    find_replica_problem,
    find_url_problem,
)
from modelserver.fleet.sections import (
    AlertsSection,
    DefaultsSection,
    EngineSection,
    GatewaySection,
    HostSection,
    ModelSection,
    ProbeSection,
    RedisSection,
    RulesSection,
    WorkersSection,
)
from modelserver.fleet.variables import find_variable, read_variables, with_variables
from modelserver.python310 import tomllib
from modelserver.values import EXTERNAL, EngineSpec, Kind, ModelSpec, engine_id


class Fleet(BaseModel):
    """The whole fleet file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[ModelSection, ...] = ()
    engines: tuple[EngineSection, ...] = ()
    hosts: tuple[HostSection, ...] = ()
    redis: RedisSection = RedisSection()
    defaults: DefaultsSection = DefaultsSection()
    rules: RulesSection = RulesSection()
    workers: WorkersSection = WorkersSection()
    gateway: GatewaySection = GatewaySection()
    probe: ProbeSection = ProbeSection()
    alerts: AlertsSection = AlertsSection()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for problem in _disagreements(self):
            raise ValueError(problem)
        return self

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each host that is listed, "" where it has none."""
        return {host.name: host.address for host in self.hosts}

    def specs(self) -> tuple[ModelSpec, ...]:
        """The models as plain values."""
        most, zone = self.defaults.max_tokens, self.rules.time_zone
        return tuple(section.spec(most, zone) for section in self.models)

    def pins(self) -> tuple[EngineSpec, ...]:
        """The pinned and external engines as plain values, numbered per model."""
        seen: Counter[str] = Counter()
        pins = []
        for section in self.engines:
            name = engine_id(section.model, seen[section.model])
            seen[section.model] += 1
            pins.append(
                EngineSpec(
                    id=name,
                    model=section.model,
                    host=section.host,
                    gpus=section.gpus,
                    port=section.port,
                    url=section.url.rstrip("/"),
                    extra_args=section.extra_args,
                    environment=section.environment,
                )
            )
        return tuple(pins)


def _disagreements(fleet: Fleet) -> list[str]:
    names = [model.name for model in fleet.models]
    adapters = [each.name for model in fleet.models for each in model.adapters]
    models = {model.name: model for model in fleet.models}
    kinds = {name: model.kind for name, model in models.items()}
    hosts = {host.name for host in fleet.hosts}
    found = [
        f'model "{name}" stands {times} times; names must differ'
        for name, times in Counter(names + adapters).items()
        if times > 1
    ]
    files: dict[str, str] = {}
    for name in dict.fromkeys(names):
        # As the launcher names an engine's log.
        other = files.setdefault(name.replace("/", "_"), name)
        if other != name:
            found.append(
                f'models "{other}" and "{name}" would share their log files; '
                "rename one of them"
            )
    for model in fleet.models:
        if model.fallback and kinds.get(model.fallback) != model.kind:
            found.append(
                f'model "{model.name}" falls back to "{model.fallback}", which is no '
                f"{model.kind} model of this fleet{_close(model.fallback, names)}"
            )
        if model.schedule and not fleet.rules.time_zone:
            found.append(
                f'model "{model.name}" has a schedule, and nothing says by which '
                'clock; set time_zone in [rules], for example "Europe/Berlin"'
            )
        found += [
            f'model "{model.name}" names host "{host}", which is not there'
            f"{_close(host, list(hosts))}"
            for host in model.hosts
            if hosts and host not in hosts
        ]
        found += host_disagreements(model, fleet.addresses)
    for kind in Kind:
        name = getattr(fleet.defaults, kind.value)
        if name and kinds.get(name) != kind:
            found.append(
                f'defaults.{kind} is "{name}", which is no {kind} model of this fleet'
                f"{_close(name, names)}"
            )
    for pin in fleet.engines:
        found += _pin_disagreements(pin, models, hosts)
    places = Counter((pin.host, pin.port) for pin in fleet.engines if pin.port)
    found += [
        f"port {port} on host {host or '(any)'} is pinned to {times} engines; "
        "give each its own or leave port out"
        for (host, port), times in places.items()
        if times > 1
    ]
    return found


def _pin_disagreements(
    pin: EngineSection, models: Mapping[str, ModelSection], hosts: set[str]
) -> list[str]:
    if pin.model not in models:
        close = _close(pin.model, list(models))
        return [f'an engine names model "{pin.model}", which is not there{close}']
    found = []
    model = models[pin.model]
    external = model.engine == EXTERNAL
    if external and not pin.url:
        found.append(f'an engine of "{pin.model}" (type external) needs a url')
    if external and (pin.extra_args or pin.environment):
        found.append(
            f'an engine of "{pin.model}" is run by somebody else; leave its extra_args '
            "and environment out"
        )
    if pin.url and not external:
        found.append(
            f'an engine of "{pin.model}" has a url, so that model needs '
            'engine = "external"'
        )
    if hosts and pin.host and pin.host not in hosts:
        close = _close(pin.host, list(hosts))
        found.append(f'an engine names host "{pin.host}", which is not there{close}')
    if pin.gpus and model.nodes > 1:
        found.append(
            f'an engine of "{pin.model}" takes several hosts, and control chooses its '
            "GPUs; leave its gpus out"
        )
    if pin.host and model.hosts and pin.host not in model.hosts:
        found.append(
            f'an engine of "{pin.model}" names host "{pin.host}", which is not among '
            f"that model's hosts; they are {', '.join(model.hosts)}"
        )
    return found


def _close(word: str, words: list[str]) -> str:
    match = difflib.get_close_matches(word, words, n=1)
    if match:
        return f'; did you mean "{match[0]}"?'
    return f"; there are: {', '.join(sorted(words))}" if words else "; there are none"


def read_fleet(path: Path) -> Fleet:
    """Read and validate one fleet file. Raises ConfigurationError."""
    try:
        # Whatever the locale says; editors of Windows begin a file with a mark.
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(_not_utf8(path)) from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    fleet = make_fleet(str(path), values)
    # Not of a fleet in force: an earlier version may have taken what is refused now.
    problems = (_argument_problems, _place_problems, _bound_problems)
    for where, problem in chain.from_iterable(find(fleet) for find in problems):
        raise ConfigurationError(
            f"{path}: the fleet file is not valid\n  {where}: {problem}"
        )
    return fleet


def _argument_problems(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """What is wrong with arguments and variables, with where they stand."""
    for number, model in enumerate(fleet.models):
        for problem in _problems_of_model(model):
            yield f"models[{number}]", problem
    models = {model.name: model for model in fleet.models}
    for number, pin in enumerate(fleet.engines):
        model = models[pin.model].model_copy(
            update={"extra_args": pin.extra_args, "environment": pin.environment}
        )
        for problem in _problems_of_model(model):
            yield f"engines[{number}]", problem


def _place_problems(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """What is wrong with hosts and the places of engines, with where they stand."""
    listed: dict[str, tuple[int, ...] | None] = {}
    for number, host in enumerate(fleet.hosts):
        is_known = host.name in listed
        for problem in find_host_problems(host.name, host.gpus or (), is_known):
            yield f"hosts[{number}]", problem
        listed[host.name] = host.gpus
    for number, model in enumerate(fleet.models):
        for name, times in Counter(model.hosts).items():
            if times > 1:
                yield f"models[{number}]", f'hosts has "{name}" twice'
    models = {model.name: model for model in fleet.models}
    for number, pin in enumerate(fleet.engines):
        replicas = models[pin.model].data_parallel
        for problem in chain(
            find_pin_problems(pin.host, pin.gpus, listed),
            find_replica_problem(pin.gpus, replicas),
            find_engine_url_problem(pin.url),
        ):
            yield f"engines[{number}]", problem
    yield from _doubled_gpus(fleet, models)
    for problem in find_url_problem(fleet.alerts.webhook):
        yield "alerts.webhook", problem


def _doubled_gpus(
    fleet: Fleet, models: Mapping[str, ModelSection]
) -> Iterator[tuple[str, str]]:
    """The GPUs that two pins name, of which one would wait for ever."""
    seen: dict[tuple[str, int], int] = {}
    for number, pin in enumerate(fleet.engines):
        for gpu in pin.gpus if pin.host else ():
            first = seen.setdefault((pin.host, gpu), number)
            pins = (pin, fleet.engines[first])
            if first != number and not all(models[p.model].share_gpu for p in pins):
                yield (
                    f"engines[{number}]",
                    f'GPU {gpu} of host "{pin.host}" is that of engines[{first}]; name '
                    "another one, or set share_gpu for both models",
                )


def _bound_problems(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Which numbers cannot be meant, with where they stand."""
    for name, part in fleet:
        many = isinstance(part, tuple)
        for number, section in enumerate(part if many else (part,)):
            for problem in find_bound_problems(section):
                yield f"{name}[{number}]" if many else name, problem


def _problems_of_model(model: ModelSection) -> Iterator[str]:
    yield from find_argument_problems(model.engine, model.extra_args)
    yield from find_variable_problems(model.environment)
    yield from find_container_problems(model.container_args)
    if model.engine == "command":
        words = (*model.command, *model.extra_args)
        yield from filter(None, map(find_placeholder_problem, words))


def _not_utf8(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return f"{path} is UTF-16 (line 1 says so); save it as UTF-8"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f" (byte 0x{data[error.start]:02x} in line {line})"
    else:
        found = ""  # Somebody has saved it anew meanwhile.
    return f"{path} is not UTF-8{found}; save it as UTF-8"


def make_fleet(source: str, values: dict[str, Any]) -> Fleet:
    """Validate a fleet's sections, with the environment laid over them.

    Raises ConfigurationError with ``source``.
    """
    try:
        return Fleet(**with_variables(Fleet, values))
    except ValidationError as error:
        raise ConfigurationError(_explain(source, error)) from None


def environment_defaults() -> dict[str, Any]:
    """The keys of ``[defaults]`` that the environment lays over the fleet."""
    values = read_variables(Fleet).get("defaults", {})
    return DefaultsSection(**values).model_dump(mode="json", exclude_unset=True)


def _explain(source: str, error: ValidationError) -> str:
    lines, variables = [], []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "the fleet"
        where = re.sub(r"\.(\d+)", r"[\1]", where)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(problem["loc"])
            what = f"is not a key{_close(str(problem['loc'][-1]), known)}"
        else:
            what = problem["msg"].removeprefix("Value error, ")
        variables.append(find_variable(Fleet, problem["loc"]))
        by = f"; {variables[-1]} says so" if variables[-1] else ""
        lines.append(f"{where}: {what}{by}")
    head = f"{source}: the fleet file is not valid"
    return "\n  ".join(
        ["the environment is not valid" if all(variables) else head, *lines]
    )


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "models": ModelSection,
        "engines": EngineSection,
        "hosts": HostSection,
        "redis": RedisSection,
        "defaults": DefaultsSection,
        "rules": RulesSection,
        "workers": WorkersSection,
        "gateway": GatewaySection,
        "probe": ProbeSection,
        "alerts": AlertsSection,
    }
    section = sections.get(str(loc[0])) if len(loc) > 1 else None
    if "schedule" in loc[2:-1]:
        return ["days", "from", "min_engines", "to"]
    return sorted((section or Fleet).model_fields)
