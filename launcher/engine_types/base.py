"""What the launcher must know to run an engine of some type, and what types share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from launcher import environments
from modelserver.values import Kind, ModelSpec

#: Engines listen on this address only: their requests come from this host's worker.
LOOPBACK = "127.0.0.1"
#: On a CPU: tokens of the context where the model's section gives none.
CPU_CONTEXT_TOKENS = 4096
#: The launcher's own packages are not an engine's, and its bytecode shall be written:
#: that makes the next start short. An empty variable is one that is not set.
CLEAN_ENVIRONMENT = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": ""}
#: An engine's processes meet on this host: gloo, NCCL and engines listen on no other
#: interface for that.
MEET_ON_LOOPBACK = {
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "SGLANG_HOST_IP": LOOPBACK,
    "VLLM_HOST_IP": LOOPBACK,
}
#: The python of an image whose model names no interpreter.
IMAGE_PYTHON = "python3"


@dataclass(frozen=True, slots=True)
class Meeting:
    """How one node of an engine of several hosts finds the others."""

    #: Its number: 0 leads.
    node: int
    #: How many there are.
    nodes: int
    #: The address of the leader's host, and the port there.
    leader: str
    port: int
    #: The address of this node's host, and the interface that has it.
    address: str
    interface: str

    def __str__(self) -> str:
        """Where they meet: "10.0.0.7:21007"."""
        host = f"[{self.leader}]" if ":" in self.leader else self.leader
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one engine runs: its port and GPUs, as they were just before its start."""

    port: int
    #: Indexes of its GPUs, in the order of their slots.
    gpus: tuple[int, ...] = ()
    #: The same GPUs by their UUIDs.
    uuids: tuple[str, ...] = ()
    #: Whether CUDA has other indexes: a GPU of this host is in slices, or is lost.
    is_renumbered: bool = False
    #: What is free on the GPU that has least free, 0 where that is not known.
    free_bytes: int = 0
    #: The size of its smallest GPU, 0 where that is not known.
    total_bytes: int = 0
    #: What the engine may take of each GPU, 0 for all that is free.
    promised_bytes: int = 0
    #: The number of the engine among those of its model.
    index: int = 0
    #: A free port for the nodes of an engine of several hosts, 0 where it has one host.
    meeting_port: int = 0
    #: The other nodes of an engine of several hosts.
    meeting: Meeting | None = None

    @property
    def visible(self) -> str:
        """``CUDA_VISIBLE_DEVICES``: indexes wherever they mean the same to CUDA.

        With UUIDs SGLang does without its custom all-reduce, and vLLM up to 0.20 dies.
        """
        indexes = tuple(map(str, self.gpus))
        return ",".join((self.uuids or indexes) if self.is_renumbered else indexes)

    @property
    def parallel_gpus(self) -> int:
        """The GPUs of all nodes, 1 for each where it has none."""
        return max(1, len(self.gpus)) * (self.meeting.nodes if self.meeting else 1)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one engine."""

    argv: tuple[str, ...]
    #: Variables on top of the launcher's own.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Requests that it lets the engine run at once, 0 where the engine tells.
    running: int = 0


class Adapter(Protocol):
    """One type of engine. Has no state and starts nothing."""

    @property
    def starts_process(self) -> bool:
        """False where somebody else runs the engine."""
        ...

    @property
    def settle_path(self) -> str:
        """The path of a POST that is sent once after the first token, "" for none."""
        ...

    @property
    def capacity_path(self) -> str:
        """The path of a page that tells how many requests it takes, "" for none."""
        ...

    def capacity(self, page: bytes, running: int, kind: Kind) -> int:
        """How many requests it takes at once by that page, 0 where it does not tell.

        ``running`` are those that its launch lets it run.
        """
        ...

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Provide what has to be there before a start; may take many seconds.

        Raises EngineEnvironmentError where the engine is not installed.
        """
        ...

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start.

        Raises ConfigurationError where the model's section makes no command.
        """
        ...

    def key_variable(self, model: ModelSpec) -> str:
        """The environment variable that gives the engine its API key, "" for none."""
        ...


class Untold:
    """What adapters share whose engines tell nothing of their capacity."""

    capacity_path = ""

    def capacity(self, page: bytes, running: int, kind: Kind) -> int:
        """Nothing."""
        return 0


def interpreter(model: ModelSpec, home: Path) -> Path:
    """The python that runs the engine: the model's own, else its environment's.

    With an image it is one in the image.
    """
    if model.image:
        return Path(model.interpreter or IMAGE_PYTHON)
    if model.interpreter:
        return Path(os.path.expanduser(model.interpreter))
    return environments.interpreter(model.environment_name, home)


def meeting_variables(place: Place) -> dict[str, str]:
    """The variables by which an engine's processes find each other, and nobody else.

    Those of one host meet on loopback, those of several on the hosts' addresses.
    """
    if place.meeting is None:
        return MEET_ON_LOOPBACK
    return {
        "GLOO_SOCKET_IFNAME": place.meeting.interface,
        "NCCL_SOCKET_IFNAME": f"={place.meeting.interface}",
        "SGLANG_HOST_IP": place.meeting.address,
        "VLLM_HOST_IP": place.meeting.address,
    }


def gpu_variables(place: Place) -> dict[str, str]:
    """The variables by which CUDA sees this engine's GPUs only."""
    return {
        # CUDA's own order is by speed, NVML's is by slot.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": place.visible,
    }
