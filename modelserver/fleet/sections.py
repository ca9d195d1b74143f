"""The sections of the fleet file, each checked by itself."""

import difflib
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from modelserver.errors import RequestError
from modelserver.fleet.adapters import AdapterSection, adapter_disagreements
from modelserver.fleet.names import HostName, HostNameOrNone, Name
from modelserver.fleet.nodes import Address, node_disagreements
from modelserver.fleet.schedule import ScheduleSection, TimeZone
from modelserver.parameters import KNOWN, OURS, check_values, plain
from modelserver.server_address import read_address
from modelserver.values import DEFAULT_RUNNING, EXTERNAL, Kind, ModelSpec

#: The ``url`` of a fleet that runs its own server.
EMBEDDED = "embedded"

#: What a probe asks: always the same, and long enough for its prompt to cost something.
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

#: The types of engines that a fleet file may name.
EngineType = Literal["sglang", "sglang-cpu", "vllm", "vllm-cpu", "command", "external"]
#: The names of container images; none may begin like an option.
IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@-]*")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(_Section):
    """``[[models]]``: one model of the fleet; ``ModelSpec`` explains its keys."""

    name: Name
    kind: Kind = Kind.COMPLETION
    path: str = ""
    engine: EngineType = "sglang"
    gpus: int = Field(default=0, ge=0, le=64)
    nodes: int = Field(default=1, ge=1, le=64)
    gpu_memory_gib: float = Field(default=0.0, ge=0)
    share_gpu: bool = False
    min_gpu_gib: float = Field(default=0.0, ge=0)
    gpu_name: str = ""
    hosts: tuple[HostName, ...] = ()
    min_engines: int = Field(default=1, ge=0)
    max_engines: int = Field(default=0, ge=0, description="0: the same as min_engines")
    priority: int = Field(default=0, ge=-100, le=100)
    schedule: tuple[ScheduleSection, ...] = ()
    context_length: int | None = Field(default=None, ge=16)
    data_parallel: int = Field(default=1, ge=1)
    torch_compile: bool | None = None
    max_running: int | None = Field(default=None, ge=1)
    itl_seconds: float = Field(default=0.0, ge=0, description="0: any")
    start_seconds: float = Field(default=0.0, ge=0, description="0: by size")
    load_in_turns: bool = False
    drain_seconds: float = Field(default=60.0, ge=0)
    idle_seconds: float = Field(default=900.0, gt=0)
    adapters: tuple[AdapterSection, ...] = ()
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
        for problem in (*_engine_disagreements(self), *_sampling_problems(self)):
            raise ValueError(problem)
        return self

    @property
    def most_engines(self) -> int:
        """How many engines it has at most."""
        return self.max_engines or max(1, self.min_engines)

    def spec(self, default_max_tokens: int = 0, zone: str = "") -> ModelSpec:
        """The same as a plain value; ``zone`` is that of its schedule."""
        values = self.model_dump()
        values["default_max_tokens"] = default_max_tokens
        values["max_engines"] = self.most_engines
        if self.max_running is None:
            tells = self.engine in ("sglang", "vllm")
            values["max_running"] = 0 if tells else DEFAULT_RUNNING
        values["adapters"] = tuple(each.plain() for each in self.adapters)
        values["schedule"] = tuple(each.window(zone) for each in self.schedule)
        return ModelSpec(**values)


def _engine_disagreements(model: ModelSection) -> Iterator[str]:
    if model.when_down == "fallback" and not model.fallback:
        yield 'when_down "fallback" needs fallback = the name of another model'
    if model.engine == EXTERNAL and model.hosts:
        yield 'engine "external" is placed by host in [[engines]]; leave hosts out'
    for key in ("min_gpu_gib", "gpu_name"):
        if getattr(model, key) and not model.gpus:
            yield f"{key} is about GPUs, and the model has none; leave it out"
    yield from _schedule_disagreements(model)
    yield from node_disagreements(model)
    yield from adapter_disagreements(model.engine, model.kind, model.adapters)
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


def _schedule_disagreements(model: ModelSection) -> Iterator[str]:
    if model.engine == EXTERNAL and (model.schedule or model.priority):
        yield 'engine "external" gets no GPUs; leave priority and schedule out'
    for each in model.schedule:
        if each.min_engines > model.most_engines:
            yield (
                f"the schedule from {each.start} has min_engines {each.min_engines}, "
                f"and max_engines is {model.most_engines}; raise that"
            )


def _sampling_problems(model: ModelSection) -> Iterator[str]:
    """What a request could not say either: each of the model's would fail."""
    tasks = ("embed",) if model.kind is Kind.EMBEDDING else ("complete", "chat")
    known = frozenset().union(*(KNOWN[task] for task in tasks))
    try:
        plain(model.sampling, "sampling")
        check_values(model.sampling)
    except RequestError as error:
        yield f"sampling: {error}"
    for name in model.sampling:
        if name in OURS or name in ("prompt", "messages", "input"):
            yield f"sampling must not hold {name}: each request says it; leave it out"
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if near:
                yield f'sampling knows no "{name}"; did you mean "{near[0]}"?'


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
    #: Its host, "" for any.
    host: HostNameOrNone = ""
    #: The indexes of its GPUs; none for control to choose.
    gpus: tuple[int, ...] = ()
    #: Its port on loopback, 0 for a free one.
    port: int = Field(default=0, ge=0, le=65535)
    #: Where it listens, if somebody else runs it.
    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    #: More arguments of this engine, after its model's.
    extra_args: tuple[str, ...] = ()
    #: More variables of this engine, over its model's.
    environment: dict[str, str] = {}


class HostSection(_Section):
    """``[[hosts]]``: a host that may run engines; none listed means any."""

    #: Its host name, or what MODELSERVER_HOST says there.
    name: HostName
    #: The indexes of the GPUs that are the fleet's; None for all.
    gpus: tuple[int, ...] | None = None
    #: Where other hosts reach it, for engines that take several.
    address: Address = ""

    def __str__(self) -> str:
        """The host as ``apply`` shows it."""
        gpus = "" if self.gpus is None else f"gpus={[*self.gpus]}"
        address = f"address={self.address}" * bool(self.address)
        return " ".join(filter(None, (self.name, gpus, address)))


class RedisSection(_Section):
    """``[redis]``: where queues, results and state live."""

    url: str = EMBEDDED
    #: A server for results only, "" for the same one.
    results_url: str = ""
    #: A file with the password, for URLs that have none; "" for no such file.
    password_file: str = ""
    #: The beginning of every key.
    prefix: str = Field(default="ms:", pattern=r"^[A-Za-z0-9_.:-]*$")
    #: The most connections of each pool of a process.
    max_connections: int = Field(default=64, ge=8)

    @field_validator("url", "results_url")
    @classmethod
    def _can_be_read(cls, url: str, info: ValidationInfo) -> str:
        url, is_state = url.strip(), info.field_name == "url"
        if url == "" or (is_state and url == EMBEDDED):
            return EMBEDDED if is_state else ""
        try:
            read_address(url)
        except ValueError as error:
            more = f', or "{EMBEDDED}"' if is_state and "://" not in url else ""
            raise ValueError(f"{error}{more}") from None
        return url


class DefaultsSection(_Section):
    """``[defaults]``: what a request gets that does not say."""

    #: The model of ``complete`` and ``chat``.
    completion: str = ""
    #: The model of ``embed``.
    embedding: str = ""
    #: How many tokens ``complete`` generates at most; 0 leaves that to the engine,
    #: which stops after 16.
    max_tokens: int = Field(default=256, ge=0)
    #: The deadline of a request, None for none.
    deadline_seconds: float | None = Field(default=None, gt=0)
    #: How long a result can be read.
    result_expires_seconds: int = Field(default=86_400, ge=60)


class RulesSection(_Section):
    """``[rules]``: when control acts, and how long leases last. All in seconds."""

    #: How often control looks at the fleet.
    steer_seconds: float = Field(default=2.0, gt=0)
    #: How long a ready engine may be without a token; a probe may take 15.
    hang_seconds: float = Field(default=60.0, ge=10)
    #: How long a worker or launcher without news still counts as alive.
    lease_seconds: float = Field(default=5.0, ge=1)
    #: How long the engines of a silent host keep their places there; 0 for as long as
    #: their model takes to load, and at least 60.
    host_grace_seconds: float = Field(default=0.0, ge=0)
    #: An engine is not relaunched for hanging so soon after it got ready.
    relaunch_pause_seconds: float = Field(default=10.0, ge=0)
    #: How long a worker that is to end may finish what it has.
    grace_seconds: float = Field(default=30.0, ge=0)
    #: How many requests a second show themselves to Flower.
    events_per_second: float = Field(default=100.0, ge=0)
    #: Whether events hold prompts.
    show_prompts: bool = False
    #: Whether control acts on slow and failing engines.
    judge_engines: bool = True
    #: The time zone of the models' schedules; needed where a model has one.
    time_zone: TimeZone = ""


class WorkersSection(_Section):
    """``[workers]``: what each host runs by its own file; it is not applied."""

    #: How many workers a host runs, "auto" for as many as its cores and engines need.
    processes: int | Literal["auto"] = 1

    @field_validator("processes", mode="before")
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, bool) or not str(value).isdigit() or value in (0, "0"):
            raise ValueError(
                f'"{value}" is no number of workers; say one from 1, or "auto"'
            )
        return int(str(value))


class GatewaySection(_Section):
    """``[gateway]``: what each gateway does by its own file; it is not applied."""

    #: Whether whole answers may get a second engine where the first one takes long.
    hedge: bool = False
    #: Responses are kept for 7 days, and of more than so many GiB the latest used ones.
    responses_gib: float = Field(default=10.0, gt=0)


class ProbeSection(_Section):
    """``[probe]``: what ``modelserver latency`` and ``fastest`` send to an engine."""

    #: The prompt.
    completion: str = Field(default=PROBE_CONVERSATION, min_length=1)
    #: The text to embed.
    embedding: str = Field(default=PROBE_CONVERSATION, min_length=1)
    #: The tokens to generate.
    max_tokens: int = Field(default=64, ge=1)


class AlertsSection(_Section):
    """``[alerts]``: how people are told; each alert as JSON to a command or a URL."""

    #: The argv of a program that gets each alert on its standard input.
    command: tuple[str, ...] = ()
    #: A URL to which each alert is posted.
    webhook: str = Field(default="", pattern=r"^(https?://.+)?$")
    #: The variable that holds a bearer token for the webhook.
    webhook_token_env: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    #: How long the command or the webhook may take.
    hook_seconds: float = Field(default=10.0, gt=0)
    #: The same alert is not told again within this time.
    repeat_seconds: float = Field(default=3600.0, ge=1)
