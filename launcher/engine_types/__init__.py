"""How each type of engine is run. The one place that branches on the type.

- ``base``: what an adapter is asked for, and what the adapters share
- ``sglang``, ``vllm``: these engines, on GPUs and on a CPU
- ``command``: a command of the fleet file, an engine of somebody else, a missing model
- ``capacity``: how many requests an engine takes at once, by its own account
- ``gpu_memory``: how much of its GPUs an engine is told to take
- ``hub``: models of the hub, and engines that need not ask it
- ``versions``: the oldest version of each engine, and flags that came later
- ``model_config``: what a model says of itself
- ``embedding``: what engines need to be told to embed, and what SGLang cannot
- ``lora``: how engines are told of adapters
- ``builtin``: models and stand-ins that this project brings itself

To add a type: a module with an ``Adapter`` (see base), a line in the registry here, the
name in ``EngineType`` of modelserver.fleet.sections, and a test of its exact command.
"""

from launcher.engine_types.base import LOOPBACK, Adapter, Launch, Place
from launcher.engine_types.command import Absent, Command, External
from launcher.engine_types.sglang import SGLang, SGLangCPU
from launcher.engine_types.vllm import VLLM, VLLMCPU
from modelserver.errors import ConfigurationError

#: The type of a model that this host's fleet file does not have.
ABSENT = "absent"

__all__ = ["ABSENT", "LOOPBACK", "Adapter", "Launch", "Place", "adapter"]


def adapter(engine_type: str) -> Adapter:
    """The adapter of an engine type. Raises ConfigurationError for an unknown one."""
    adapters: dict[str, Adapter] = {
        "sglang": SGLang(),
        "sglang-cpu": SGLangCPU(),
        "vllm": VLLM(),
        "vllm-cpu": VLLMCPU(),
        "command": Command(),
        "external": External(),
        ABSENT: Absent(),
    }
    try:
        return adapters[engine_type]
    except KeyError:
        raise ConfigurationError(
            f'engine "{engine_type}" is not known; write one of {", ".join(adapters)}'
        ) from None
