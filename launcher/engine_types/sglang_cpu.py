"""SGLang on a CPU, for tests and for a first try without a GPU."""

import json
from pathlib import Path

from launcher.engine_types import builtin
from launcher.engine_types.base import Launch, Place
from launcher.engine_types.sglang import (
    CLEAN,
    GIVEN_UP,
    KEY_VARIABLE,
    interpreter,
    kind_and_compile,
    serve,
)
from modelserver.values import Kind, ModelSpec

#: Room for tokens; without it SGLang takes 15 GB and half a minute more.
MAX_TOTAL_TOKENS = 65_536
#: Tokens; where the model's section says nothing.
CONTEXT_LENGTH = 4096
CHUNKED_PREFILL_SIZE = 2048
#: Encoders that SGLang computes wrong vectors for if it splits or reuses their prompts.
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "modernbert"})


class SGLangCPU:
    """``sglang serve --device cpu`` of the environment ``sglang-cpu``."""

    starts_process = True
    #: What its own warm-up, which is left out, ends with: a collection of all that
    #: was loaded keeps every request waiting for 0.4 s.
    settle_path = "/freeze_gc"

    def prepare(self, model: ModelSpec, home: Path) -> None:
        """Find the environment; write the builtin models where one is wanted."""
        builtin.ensure(model, interpreter(model, home), home)

    def launch(self, model: ModelSpec, place: Place, home: Path) -> Launch:
        """The command for one start; the fleet file's extra_args win, being last."""
        path = builtin.model_path(model, home)
        argv = [
            *serve(model, place, home),
            "--device",
            "cpu",
            # "auto" would take half precision, which no CPU here is quick at.
            "--dtype",
            "float32",
            "--attention-backend",
            "torch_native",
            "--disable-overlap-schedule",
            "--max-total-tokens",
            str(MAX_TOTAL_TOKENS),
            "--mem-fraction-static",
            "0.3",
            "--max-running-requests",
            str(model.max_running),
            *_prompts(model, path),
            "--enable-metrics",
            # READY is gated on a generated token anyway: the warm-up costs 2 s.
            "--skip-server-warmup",
            # Without it an idle engine keeps a core busy.
            "--sleep-on-idle",
        ]
        argv += kind_and_compile(model)
        environment = {
            **CLEAN,
            **GIVEN_UP,
            "SGLANG_USE_CPU_ENGINE": "1",
            # One thread per engine: 3 requests a second became 78.
            "OMP_NUM_THREADS": "1",
            **builtin.standins(model),
            # Children are forked, not spawned: they need not import torch again.
            "MODELSERVER_ENGINE_FORK": "1",
            **({"HF_HUB_OFFLINE": "1"} if Path(path).is_dir() else {}),
            **model.environment,
        }
        return Launch((*argv, *model.extra_args), environment)

    def key_variable(self, model: ModelSpec) -> str:
        """For the starter, which hands it on."""
        return KEY_VARIABLE


def _prompts(model: ModelSpec, path: str) -> list[str]:
    if model.kind is Kind.EMBEDDING and _is_encoder(Path(path)):
        return ["--disable-radix-cache", "--chunked-prefill-size", "-1"]
    return [
        "--context-length",
        str(model.context_length or CONTEXT_LENGTH),
        "--chunked-prefill-size",
        str(CHUNKED_PREFILL_SIZE),
    ]


def _is_encoder(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return config.get("model_type") in ENCODERS
