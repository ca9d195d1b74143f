"""The fleet file: its sections, what they must agree on, and how it is read.

Unknown keys are refused. ``MODELSERVER_REDIS_URL`` and the like (section, underscore,
key) are laid over the file.
"""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from modelserver.errors import ConfigurationError
from modelserver.values import EXTERNAL, EngineSpec, Kind, ModelSpec, engine_id

#: The ``url`` of a fleet that runs its own server.
EMBEDDED = "embedded"

#: What a probe asks: long enough for its prompt to cost something, always the same.
PROBE_CONVERSATION = """\
You are in a household and solve a task step by step. Every turn you see what is around
you, think, and take one action.
Action: look
You are in the middle of a room. You see a cabinet 1, a cabinet 2, a countertop 1, a
drawer 1, a fridge 1, a garbagecan 1, a microwave 1, a sinkbasin 1 and a stoveburner 1.
Your task is to: put a clean mug on the countertop.
Thought: First I look for a mug. Mugs often stand in a cabinet or in the sink.
Action: open cabinet 1
The cabinet 1 is open. In it, you see a bowl 1, a plate 2 and a saltshaker 1.
Thought: There is no mug here. I look into the sink next.
Action: go to sinkbasin 1
On the sinkbasin 1, you see a fork 1, a mug 2 and a spoon 3.
Thought: Here is a mug. I take it, and then I clean it under the tap.
Action: take mug 2 from sinkbasin 1
You pick up the mug 2 from the sinkbasin 1.
Thought:"""

EngineType = Literal["sglang", "sglang-cpu", "vllm", "vllm-cpu", "command", "external"]
#: What may stand for a container image; nothing that begins like an option.
IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@-]*")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]


def plain_url(url: str) -> str:
    """The URL without its password, for messages."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://***@{tail}" if at else url


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """``[[models]]``: one model that the fleet serves."""

    name: Name
    kind: Kind = Kind.COMPLETION
    path: str = ""
    engine: EngineType = "sglang"
    gpus: int = Field(default=0, ge=0, le=64)
    gpu_memory_gib: float = Field(default=0.0, ge=0)
    share_gpu: bool = False
    min_engines: int = Field(default=1, ge=0)
    max_engines: int = Field(default=0, ge=0, description="0: the same as min_engines")
    context_length: int | None = Field(default=None, ge=16)
    data_parallel: int = Field(default=1, ge=1)
    torch_compile: bool | None = None
    max_running: int = Field(default=64, ge=1)
    start_seconds: float = Field(default=0.0, ge=0, description="0: by size")
    drain_seconds: float = Field(default=60.0, ge=0)
    idle_seconds: float = Field(default=900.0, gt=0)
    extra_args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    interpreter: str = ""
    image: str = ""
    container_args: tuple[str, ...] = ()
    engine_version: str = Field(default="", pattern=r"^([0-9][0-9a-z.+]*)?$")
    api_key_env: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    sampling: dict[str, Any] = {}
    fallback: str = ""
    when_down: Literal["wait", "fallback", "fail"] = "wait"
    down_after_seconds: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.max_engines and self.max_engines < self.min_engines:
            raise ValueError(
                f"max_engines {self.max_engines} is below min_engines "
                f"{self.min_engines}; raise it or leave it out"
            )
        if self.share_gpu and not self.gpu_memory_gib:
            raise ValueError(
                "share_gpu needs gpu_memory_gib, what each engine takes of a GPU"
            )
        if self.engine == "command" and not self.command:
            raise ValueError('engine "command" needs command = ["program", ...]')
        for problem in _engine_disagreements(self):
            raise ValueError(problem)
        return self

    def spec(self) -> ModelSpec:
        """The same as a plain value."""
        values = self.model_dump()
        values["max_engines"] = self.max_engines or max(1, self.min_engines)
        return ModelSpec(**values)


def _engine_disagreements(model: ModelSection) -> Iterator[str]:
    if model.when_down == "fallback" and not model.fallback:
        yield 'when_down "fallback" needs fallback = the name of another model'
    if model.fallback == model.name:
        yield f'model "{model.name}" cannot be its own fallback; name another model'
    ours = model.engine not in ("command", EXTERNAL)
    if ours and not model.path:
        yield f'engine "{model.engine}" needs path = a folder or a Hugging Face id'
    if model.engine in ("sglang", "vllm") and model.gpus == 0:
        yield (
            f'engine "{model.engine}" needs gpus = 1 or more; without a GPU use '
            f'"{model.engine}-cpu"'
        )
    if model.data_parallel > 1 and model.gpus % model.data_parallel:
        yield (
            f"gpus {model.gpus} cannot be shared out evenly among data_parallel "
            f"{model.data_parallel}"
        )
    if model.data_parallel > 1 and model.engine not in ("sglang", "vllm"):
        yield f'engine "{model.engine}" knows no data_parallel; leave it out'
    if ours and model.api_key_env:
        yield (
            f'engine "{model.engine}" gets a key of its own at each start; leave '
            "api_key_env out"
        )
    yield from _image_disagreements(model)
    if any(word.split("=")[0] == "--api-key" for word in model.extra_args):
        yield (
            "extra_args must not hold --api-key, which every user of the host could "
            "read; an engine gets a key by itself"
        )


def _image_disagreements(model: ModelSection) -> Iterator[str]:
    if model.container_args and not model.image:
        yield "container_args are for the container of an image; name one by image"
    if not model.image:
        return
    if not IMAGE.fullmatch(model.image):
        yield (
            f'image "{model.image}" is no name of an image, such as '
            "lmsysorg/sglang:v0.5.23"
        )
    if model.engine == EXTERNAL:
        yield 'engine "external" is run by somebody else; leave image out'
    if model.engine_version:
        yield (
            f"image {model.image} brings an engine of its own version; leave "
            "engine_version out"
        )
    if model.path.startswith("builtin:"):
        yield (
            f'path "{model.path}" is written by an installed engine; with image, give '
            "a folder or a Hugging Face id"
        )


class EngineSection(_Section):
    """``[[engines]]``: one engine pinned to a place, or run by somebody else (url)."""

    model: str
    host: str = ""
    gpus: tuple[int, ...] = ()
    port: int = Field(default=0, ge=0, le=65535)
    url: str = Field(default="", pattern=r"^(https?://.+)?$")


class HostSection(_Section):
    """``[[hosts]]``: a host that may run engines; none listed means any."""

    name: str


class RedisSection(_Section):
    """``[redis]``: where queues, results and state live."""

    url: str = EMBEDDED
    results_url: str = ""
    prefix: str = Field(default="ms:", pattern=r"^[A-Za-z0-9_.:-]*$")
    max_connections: int = Field(default=64, ge=8)

    @field_validator("url", "results_url")
    @classmethod
    def _is_known(cls, url: str) -> str:
        if url not in ("", EMBEDDED) and not re.match(r"rediss?://.", url):
            raise ValueError(
                f'"{plain_url(url)}" must be redis://host:port/db, rediss://... or '
                f'"{EMBEDDED}"'
            )
        return url


class DefaultsSection(_Section):
    """``[defaults]``: what a request gets that does not say."""

    completion: str = ""
    embedding: str = ""
    deadline_seconds: float | None = Field(default=None, gt=0)
    result_expires_seconds: int = Field(default=86_400, ge=60)


class RulesSection(_Section):
    """``[rules]``: when control acts, and how long leases last. All in seconds."""

    steer_seconds: float = Field(default=2.0, gt=0)
    # An idle engine is probed every few seconds, and a probe may take 15.
    hang_seconds: float = Field(default=60.0, ge=10)
    lease_seconds: float = Field(default=5.0, ge=1)
    relaunch_pause_seconds: float = Field(default=10.0, ge=0)
    grace_seconds: float = Field(default=30.0, ge=0)
    events_per_second: float = Field(default=100.0, ge=0)
    show_prompts: bool = False
    judge_engines: bool = True


class ProbeSection(_Section):
    """``[probe]``: what ``modelserver latency`` and ``fastest`` send to an engine."""

    completion: str = Field(default=PROBE_CONVERSATION, min_length=1)
    embedding: str = Field(default=PROBE_CONVERSATION, min_length=1)
    max_tokens: int = Field(default=64, ge=1)


class AlertsSection(_Section):
    """``[alerts]``: how people are told; each alert as JSON to a command or a URL."""

    command: tuple[str, ...] = ()
    webhook: str = Field(default="", pattern=r"^(https?://.+)?$")
    webhook_token_env: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    hook_seconds: float = Field(default=10.0, gt=0)
    repeat_seconds: float = Field(default=3600.0, ge=1)


class Fleet(BaseSettings):
    """The whole fleet file, with the environment laid over it."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="MODELSERVER_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
    )

    models: tuple[ModelSection, ...] = ()
    engines: tuple[EngineSection, ...] = ()
    hosts: tuple[HostSection, ...] = ()
    redis: RedisSection = RedisSection()
    defaults: DefaultsSection = DefaultsSection()
    rules: RulesSection = RulesSection()
    probe: ProbeSection = ProbeSection()
    alerts: AlertsSection = AlertsSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the fleet file."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for problem in _disagreements(self):
            raise ValueError(problem)
        return self

    def specs(self) -> tuple[ModelSpec, ...]:
        """The models as plain values."""
        return tuple(section.spec() for section in self.models)

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
                )
            )
        return tuple(pins)


def _disagreements(fleet: Fleet) -> list[str]:
    names = [model.name for model in fleet.models]
    kinds = {model.name: model.kind for model in fleet.models}
    types = {model.name: model.engine for model in fleet.models}
    hosts = {host.name for host in fleet.hosts}
    found = [
        f'model "{name}" stands {times} times; names must differ'
        for name, times in Counter(names).items()
        if times > 1
    ]
    for model in fleet.models:
        if model.fallback and kinds.get(model.fallback) != model.kind:
            found.append(
                f'model "{model.name}" falls back to "{model.fallback}", which is no '
                f"{model.kind} model of this fleet{_close(model.fallback, names)}"
            )
    for kind in Kind:
        name = getattr(fleet.defaults, kind.value)
        if name and kinds.get(name) != kind:
            found.append(
                f'defaults.{kind} is "{name}", which is no {kind} model of this fleet'
                f"{_close(name, names)}"
            )
    for pin in fleet.engines:
        found += _pin_disagreements(pin, types, hosts)
    places = Counter((pin.host, pin.port) for pin in fleet.engines if pin.port)
    found += [
        f"port {port} on host {host or '(any)'} is pinned to {times} engines; "
        "give each its own or leave port out"
        for (host, port), times in places.items()
        if times > 1
    ]
    return found


def _pin_disagreements(
    pin: EngineSection, types: Mapping[str, str], hosts: set[str]
) -> list[str]:
    if pin.model not in types:
        close = _close(pin.model, list(types))
        return [f'an engine names model "{pin.model}", which is not there{close}']
    found = []
    external = types[pin.model] == EXTERNAL
    if external and not pin.url:
        found.append(f'an engine of "{pin.model}" (type external) needs a url')
    if pin.url and not external:
        found.append(
            f'an engine of "{pin.model}" has a url, so that model needs '
            'engine = "external"'
        )
    if hosts and pin.host and pin.host not in hosts:
        close = _close(pin.host, list(hosts))
        found.append(f'an engine names host "{pin.host}", which is not there{close}')
    return found


def _close(word: str, words: list[str]) -> str:
    match = difflib.get_close_matches(word, words, n=1)
    if match:
        return f'; did you mean "{match[0]}"?'
    return f"; there are: {', '.join(sorted(words))}" if words else "; there are none"


def read_fleet(path: Path) -> Fleet:
    """Read and validate one fleet file. Raises ConfigurationError."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    return make_fleet(str(path), values)


def make_fleet(source: str, values: dict[str, Any]) -> Fleet:
    """Validate a fleet's sections. Raises ConfigurationError with ``source``."""
    try:
        return Fleet(**values)
    except ValidationError as error:
        raise ConfigurationError(_explain(source, error)) from error


def environment_defaults() -> dict[str, Any]:
    """The keys of ``[defaults]`` that the environment lays over the fleet."""
    values = EnvSettingsSource(Fleet)().get("defaults", {})
    return DefaultsSection(**values).model_dump(mode="json", exclude_unset=True)


def _explain(source: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "the fleet"
        where = re.sub(r"\.(\d+)", r"[\1]", where)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(problem["loc"])
            what = f"is not a key{_close(str(problem['loc'][-1]), known)}"
        else:
            what = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {what}")
    return f"{source}: " + "\n  ".join(["the fleet file is not valid", *lines])


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "models": ModelSection,
        "engines": EngineSection,
        "hosts": HostSection,
        "redis": RedisSection,
        "defaults": DefaultsSection,
        "rules": RulesSection,
        "probe": ProbeSection,
        "alerts": AlertsSection,
    }
    section = sections.get(str(loc[0])) if len(loc) > 1 else None
    return sorted((section or Fleet).model_fields)
