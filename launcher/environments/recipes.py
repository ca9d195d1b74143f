"""Which engines can be installed, and what an environment of each consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelserver.errors import EngineEnvironmentError

GB = 1_000_000_000


@dataclass(frozen=True)
class PackageStep:
    """One `uv pip install`: its packages, and in plain words what and why."""

    what: str
    why: str
    requirements: tuple[str, ...]
    with_dependencies: bool = True


@dataclass(frozen=True)
class Recipe:
    """An engine at one version, and the steps that make its environment.

    `torch` is a version of which a CPU build is wanted, or None where the engine's own
    requirements bring torch. `needed_bytes` is about the finished environment's size
    (with a CUDA build of torch: `needed_with_cuda_bytes`), which a disk must have free.
    `check` is imported to prove that the environment works; `package` is the module
    whose version is named.
    """

    name: str
    version: str
    package: str
    check: str
    steps: tuple[PackageStep, ...]
    needed_bytes: int
    needed_with_cuda_bytes: int
    torch: str | None = None
    uses_standins: bool = False


# SGLang's own requirements ask for CUDA kernels, for torch 2.14.1 and for audio and
# video decoders. These are the packages that it imports when it serves text on a CPU.
_SGLANG_CPU_IMPORTS = (
    "transformers==5.19.0",
    "triton",
    "fastapi",
    "uvicorn>=0.51",
    "uvloop",
    "orjson",
    "pyzmq",
    "psutil",
    "prometheus-client",
    "pydantic",
    "python-multipart",
    "requests",
    "aiohttp",
    "msgspec",
    "setproctitle",
    "xxhash",
    "zstandard",
    "pybase64",
    "partial_json_parser",
    "packaging",
    "numpy",
    "einops",
    "ipython",
    "pillow",
    "interegular",
    "compressed-tensors==0.18.0",
    "openai==2.8.0",
    "openai-harmony==0.0.4",
    "anthropic",
    "tiktoken",
    "sentencepiece==0.2.1",
    "llguidance>=1.7.6,<2",
    "xgrammar==0.2.7",
    "gguf",
    "watchfiles",
    "regex",
    "tqdm",
    "dill",
    "jsonschema",
    "soundfile",
)

SGLANG_CPU = Recipe(
    name="sglang-cpu",
    version="0.5.23",
    package="sglang",
    # The server's own entry module: it imports every package that serving needs.
    check="sglang.srt.entrypoints.http_server",
    torch="2.13.0",
    uses_standins=True,
    needed_bytes=3 * GB,
    needed_with_cuda_bytes=10 * GB,
    steps=(
        PackageStep(
            what="installing SGLang",
            why="without its dependencies, which ask for CUDA kernels",
            requirements=("sglang==0.5.23", "torchvision==0.28.0"),
            with_dependencies=False,
        ),
        PackageStep(
            what="installing what SGLang imports on a CPU",
            why="about 100 packages, one of 270 MB; quicker the next time",
            requirements=_SGLANG_CPU_IMPORTS,
        ),
    ),
)

SGLANG = Recipe(
    name="sglang",
    version="0.5.23",
    package="sglang",
    check="sglang",
    needed_bytes=14 * GB,
    needed_with_cuda_bytes=14 * GB,
    steps=(
        PackageStep(
            what="installing SGLang with its CUDA packages",
            why="several gigabytes to download the first time",
            requirements=("sglang==0.5.23",),
        ),
    ),
)

VLLM = Recipe(
    name="vllm",
    version="0.33.0",
    package="vllm",
    check="vllm",
    needed_bytes=14 * GB,
    needed_with_cuda_bytes=14 * GB,
    steps=(
        PackageStep(
            what="installing vLLM with its CUDA packages",
            why="several gigabytes to download the first time",
            requirements=("vllm==0.33.0",),
        ),
    ),
)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe for recipe in (SGLANG_CPU, SGLANG, VLLM)
}


def recipe_of(name: str) -> Recipe:
    """Return the recipe of `name`; EngineEnvironmentError names the known ones."""
    try:
        return RECIPES[name]
    except KeyError:
        known = ", ".join(sorted(RECIPES))
        raise EngineEnvironmentError(
            f"unknown engine {name!r}; modelserver installs these engines: {known}"
        ) from None
