"""Which engines are wanted, and what each of them takes of a host."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from modelserver.inventory import GIB, gib
from modelserver.model import EngineSpec, ModelSpec

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


def wanted(models: Iterable[ModelSpec], pins: Iterable[EngineSpec]) -> list[EngineSpec]:
    """The pins, then as many more of each model as its min_engines asks for.

    An engine with an empty host may run on any.
    """
    engines = list(pins)
    pinned = Counter(pin.model for pin in engines)
    for model in models:
        if model.engine == EXTERNAL:
            continue
        numbers = range(pinned[model.name], model.min_engines)
        engines += [EngineSpec(f"{model.name}-{n}", model.name, "") for n in numbers]
    return engines
