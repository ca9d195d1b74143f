"""Which GPUs of its host a launcher gives to engines. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from modelserver.fleet.file import Fleet
from modelserver.inventory import Gpu
from modelserver.settings import SLURM_GPUS, Settings

#: Several indexes at once, as Slurm may write them: "0-3".
_SPAN = re.compile(r"(\d{1,3})-(\d{1,3})")


@dataclass(frozen=True, slots=True)
class OwnGpus:
    """What keeps a launcher to some GPUs of its host."""

    #: The indexes that the fleet lists for this host, None for all.
    listed: tuple[int, ...] | None = None
    #: The launcher's own variable that names GPUs, "" for none.
    variable: str = ""
    #: The value of that variable.
    value: str = ""
    #: The UUIDs of GPUs that are kept for others on this host, each with why.
    kept: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, fleet: Fleet, settings: Settings, kept: Mapping[str, str]) -> Self:
        """What this launcher keeps to by the fleet in force and its environment."""
        hosts = {host.name: host for host in fleet.hosts}
        host = hosts.get(settings.host)
        return cls(host.gpus if host else None, *settings.gpu_variable, kept)

    def mark(self, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
        """The GPUs, each that is not this launcher's with why it is left out."""
        return tuple(
            replace(gpu, left_out=gpu.left_out or self._why_not(gpu, gpus))
            for gpu in gpus
        )

    def _why_not(self, gpu: Gpu, gpus: Sequence[Gpu]) -> str:
        if self.listed is not None and gpu.index not in self.listed:
            return f"gpus of this host in [[hosts]] are {list(self.listed)}"
        if why := self.kept.get(gpu.uuid):
            return why
        names = _names(self.value)
        if not self.variable or any(_means(name, gpu) for name in names):
            return ""
        # Slurm counts all GPUs of the host, the driver those that the job may see: if
        # these are no more than it has, they are its own.
        seen = {each.index for each in gpus}
        if self.variable == SLURM_GPUS and len(seen) <= len(set(names)):
            return ""
        return f"the launcher has {self.variable}={self.value}"


def _names(value: str) -> list[str]:
    """What such a variable names. As with CUDA nothing counts from a "-1" on.

    >>> _names("0-2, 5"), _names("0,-1,1"), _names("GPU-89, MIG-1-2"), _names("")
    (['0', '1', '2', '5'], ['0'], ['GPU-89', 'MIG-1-2'], [])
    """
    names: list[str] = []
    for name in filter(None, map(str.strip, value.split(","))):
        if name.startswith("-"):
            break
        if span := _SPAN.fullmatch(name):
            names += map(str, range(int(span[1]), int(span[2]) + 1))
        else:
            names.append(name)
    return names


def _means(name: str, gpu: Gpu) -> bool:
    """Whether a name in such a variable is this GPU's: an index, or how a UUID begins.

    >>> [_means(name, Gpu(3, "GPU-8932f937")) for name in ("3", "GPU-8932", "GPU", "")]
    [True, True, False, False]
    """
    if name.startswith(("GPU-", "MIG-")) and not name.endswith("-"):
        return gpu.uuid.startswith(name)
    return name == str(gpu.index)
