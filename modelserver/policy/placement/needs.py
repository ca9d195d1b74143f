"""Which engines are wanted, and what each of them takes of a host."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from typing_extensions import Self

from modelserver.inventory import GIB, gib
from modelserver.values import (
    EXTERNAL,
    EngineSpec,
    ModelSpec,
    engine_id,
    split_engine_id,
)


@dataclass(frozen=True, slots=True)
class Need:
    """What an engine takes of a host."""

    #: How many GPUs.
    gpus: int = 0
    #: Bytes of each of them, 0 for a whole free GPU.
    each: int = 0
    #: Whether other engines that share may have the rest of each.
    shares: bool = False
    #: Bytes that each of them has in all, at least.
    least: int = 0
    #: A part of their name, "" for any.
    name: str = ""
    #: The hosts that may be taken, none for any.
    hosts: tuple[str, ...] = ()
    #: Whether slices of MIG may be taken.
    slices: bool = True
    #: How many hosts it takes, the same of each.
    nodes: int = 1

    @classmethod
    def of(cls, spec: EngineSpec, model: ModelSpec | None) -> Self:
        """What an engine of this model takes; nothing where somebody else runs it."""
        if model is None or spec.url:
            return cls()
        return cls.of_model(model, len(spec.gpus))

    @classmethod
    def of_model(cls, model: ModelSpec, pinned_gpus: int = 0) -> Self:
        """What each engine of this model takes, unless a pin names its GPUs."""
        return cls(
            pinned_gpus or model.gpus // model.nodes,
            int(model.gpu_memory_gib * GIB),
            model.share_gpu,
            int(model.min_gpu_gib * GIB),
            model.gpu_name,
            model.hosts,
            # It reads indexes where CUDA wants the UUID of a slice.
            slices=model.engine != "vllm",
            nodes=model.nodes,
        )

    def allows(self, host: str) -> bool:
        """Whether an engine with this need may be on a host."""
        return not self.hosts or host in self.hosts

    @property
    def rank(self) -> tuple[int, bool, int]:
        """Sorts big needs to the front: more GPUs, then whole ones, then memory."""
        return (-self.gpus * self.nodes, self.each > 0, -max(self.each, self.least))

    def __str__(self) -> str:
        """For messages: "2 GPUs with 70 GiB free", "1 free GPU (H100)"."""
        if self.nodes > 1:
            each = f"{replace(self, nodes=1)} on each of " if self.gpus else ""
            return f"{each}{self.nodes} hosts"
        plural = "GPUs" if self.gpus > 1 else "GPU"
        least = f"{gib(self.least)} or more" if self.least else ""
        kind = ", ".join(filter(None, (self.name, least)))
        kind = f" ({kind})" if kind else ""
        if not self.each:
            return f"{self.gpus} free {plural}{kind}"
        return f"{self.gpus} {plural}{kind} with {gib(self.each)} free"


@dataclass(frozen=True, slots=True)
class Demand:
    """Which engines to have beside the pinned ones, in place of ``min_engines``."""

    #: The engines. One with a host is to have these GPUs of that host.
    engines: tuple[EngineSpec, ...] = ()
    #: The engine that will get a GPU, by the GPU's UUID: no other is placed there.
    reserved: Mapping[str, EngineSpec] = field(default_factory=dict)
    #: The engines that a model has whatever comes, if more than its ``min_engines``.
    minimums: Mapping[str, int] = field(default_factory=dict)

    @property
    def places(self) -> dict[str, EngineSpec]:
        """The engines that are to have a certain place, by id."""
        return {each.id: each for each in self.engines if each.host}


def turns(
    engines: Iterable[EngineSpec],
    models: Mapping[str, ModelSpec],
    minimums: Mapping[str, int],
) -> dict[str, tuple[bool, int]]:
    """Sorts the engines that go first to the front, by id; all equal without ranks.

    First come the minimums of the models, those of higher rank first, then the rest in
    the same way.
    """
    if len({each.priority for each in models.values()}) < 2:
        return {each.id: (False, 0) for each in engines}
    seen: Counter[str] = Counter()
    found = {}
    for each in sorted(engines, key=lambda spec: split_engine_id(spec.id)[1]):
        model = models.get(each.model)
        least = max(minimums.get(each.model, 0), model.min_engines if model else 0)
        found[each.id] = (seen[each.model] >= least, -(model.priority if model else 0))
        seen[each.model] += 1
    return found


def in_turn(
    engines: Iterable[EngineSpec],
    models: Mapping[str, ModelSpec],
    needs: Mapping[str, Need],
    minimums: Mapping[str, int],
) -> list[EngineSpec]:
    """The engines as they are to be placed: by their turns, then big needs first.

    Of those that are alike each model has one before any has two: where GPUs are short,
    no model has none so that another has all of its own.
    """
    every = sorted(engines, key=lambda each: split_engine_id(each.id)[1])
    turn = turns(every, models, minimums)
    return sorted(every, key=lambda each: (turn[each.id], needs[each.id].rank))


def wanted_engines(
    models: Iterable[ModelSpec],
    pins: Iterable[EngineSpec],
    demand: Demand | None = None,
) -> list[EngineSpec]:
    """The pins, then what is demanded, or as many of each model as its min_engines.

    An engine with an empty host may run on any.
    """
    engines = list(pins)
    if demand is not None:
        more = [EngineSpec(each.id, each.model, "") for each in demand.engines]
        return engines + more
    pinned = Counter(pin.model for pin in engines)
    for model in models:
        if model.engine == EXTERNAL:
            continue
        numbers = range(pinned[model.name], model.min_engines)
        ids = (engine_id(model.name, number) for number in numbers)
        engines += [EngineSpec(each, model.name, "") for each in ids]
    return engines
