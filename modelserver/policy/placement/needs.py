"""Which engines are wanted, and what each of them takes of a host."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from modelserver.inventory import GIB, gib
from modelserver.values import EngineSpec, ModelSpec, engine_id

#: Engines of this type run elsewhere, so they exist only where a pin names their URL.
EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Need:
    """GPUs of one host. ``each`` is bytes of each of them, 0 for a whole free GPU.

    With ``shares``, other engines that share may have the rest of each.
    """

    gpus: int = 0
    each: int = 0
    shares: bool = False

    @classmethod
    def of(cls, spec: EngineSpec, model: ModelSpec | None) -> Self:
        """What an engine of this model takes; nothing where somebody else runs it."""
        if model is None or spec.url:
            return cls()
        each = int(model.gpu_memory_gib * GIB)
        return cls(len(spec.gpus) or model.gpus, each, model.share_gpu)

    @property
    def rank(self) -> tuple[int, bool, int]:
        """Sorts big needs to the front: more GPUs, then whole ones, then memory."""
        return (-self.gpus, self.each > 0, -self.each)

    def __str__(self) -> str:
        """For messages: "2 GPUs with 70 GiB free", "1 free GPU"."""
        plural = "GPUs" if self.gpus > 1 else "GPU"
        if not self.each:
            return f"{self.gpus} free {plural}"
        return f"{self.gpus} {plural} with {gib(self.each)} free"


@dataclass(frozen=True, slots=True)
class Demand:
    """Which engines to have beside the pinned ones, in place of ``min_engines``.

    One with a host is to have these GPUs of that host. ``reserved`` maps GPUs to the
    engine that will get them: nothing else is placed there.
    """

    engines: tuple[EngineSpec, ...] = ()
    reserved: Mapping[str, EngineSpec] = field(default_factory=dict)

    @property
    def places(self) -> dict[str, EngineSpec]:
        """The engines that are to have a certain place."""
        return {each.id: each for each in self.engines if each.host}


def wanted(
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
