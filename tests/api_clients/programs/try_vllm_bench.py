"""vLLM's own load generator: every request is answered, with as many tokens."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from trials import BASE_URL, EMBEDDER, SUBJECT, WRITER, run, trial

#: As the engines start: torchvision of a CPU wants operators that it has not.
STAND_INS = Path(__file__).parents[3] / "launcher" / "environments" / "standins"
#: ``vllm bench serve``, whose command wants the version of a distribution "vllm".
BENCH_SERVE = """
from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
serve.add_cli_args(parser)
serve.main(parser.parse_args())
"""
REQUESTS, TOKENS = 40, 8


def bench(model: str, backend: str, path: str, *options: str) -> dict[str, float]:
    """What ``vllm bench serve`` says of a small load."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-c", BENCH_SERVE),
                *("--base-url", BASE_URL.removesuffix("/v1"), "--endpoint", path),
                *("--backend", backend, "--model", model),
                *("--tokenizer", SUBJECT["tokenizer"], "--dataset-name", "random"),
                *("--random-input-len", "16", "--num-prompts", str(REQUESTS)),
                *("--request-rate", "20", "--save-result", "--result-dir", folder),
                *options,
            ],
            env=os.environ | {"PYTHONPATH": str(STAND_INS)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        [file] = Path(folder).glob("*.json")
        told: dict[str, float] = json.loads(file.read_text())
    assert (told["completed"], told.get("failed", 0)) == (REQUESTS, 0)
    return told


LENGTHS = ("--random-output-len", str(TOKENS), "--ignore-eos")


@trial
def completions() -> None:
    """completions, streamed"""
    told = bench(WRITER, "openai", "/v1/completions", *LENGTHS)
    assert told["total_output_tokens"] == REQUESTS * TOKENS


@trial
def chats() -> None:
    """chats, streamed"""
    told = bench(WRITER, "openai-chat", "/v1/chat/completions", *LENGTHS)
    assert told["total_output_tokens"] == REQUESTS * TOKENS


@trial
def vectors() -> None:
    """embeddings"""
    bench(EMBEDDER, "openai-embeddings", "/v1/embeddings")


run()
