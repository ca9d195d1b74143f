"""Which GPUs of its host a launcher gives to engines. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from modelserver.fleet.file import Fleet
from modelserver.inventory import Gpu
from modelserver.settings import SLURM_GPUS, Settings


@dataclass(frozen=True, slots=True)
class OwnGpus:
    """What keeps a launcher to some GPUs of its host."""

    #: The indexes that the fleet lists for this host, None for all.
    listed: tuple[int, ...] | None = None
    #: The launcher's own variable that names GPUs, "" for none.
    variable: str = ""
    #: The value of that variable.
    value: str = ""

    @classmethod
    def of(cls, fleet: Fleet, settings: Settings) -> Self:
        """What this launcher keeps to by the fleet in force and its environment."""
        hosts = {host.name: host for host in fleet.hosts}
        host = hosts.get(settings.host)
        return cls(host.gpus if host else None, *settings.gpu_variable)

    def mark(self, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
        """The GPUs, each that is not this launcher's with why it is left out."""
        return tuple(
            replace(gpu, left_out=gpu.left_out or self._why_not(gpu, gpus))
            for gpu in gpus
        )

    def _why_not(self, gpu: Gpu, gpus: Sequence[Gpu]) -> str:
        if self.listed is not None and gpu.index not in self.listed:
            return f"gpus of this host in [[hosts]] are {list(self.listed)}"
        names = [name.strip() for name in self.value.split(",")]
        if not self.variable or any(_means(name, gpu) for name in names):
            return ""
        # Slurm counts all GPUs of the host, the driver those that the job may see.
        if self.variable == SLURM_GPUS and not all(
            any(_means(name, each) for each in gpus) for name in names
        ):
            return ""
        return f"the launcher has {self.variable}={self.value}"


def _means(name: str, gpu: Gpu) -> bool:
    """Whether a name in such a variable is this GPU's: an index, or how a UUID begins.

    >>> [_means(name, Gpu(3, "GPU-8932f937")) for name in ("3", "GPU-8932", "GPU", "")]
    [True, True, False, False]
    """
    if name.startswith(("GPU-", "MIG-")):
        return gpu.uuid.startswith(name)
    return name == str(gpu.index)
