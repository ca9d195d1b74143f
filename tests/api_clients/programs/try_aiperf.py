"""aiperf: chats, completions and vectors under load all come to their end."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from trials import BASE_URL, EMBEDDER, SUBJECT, WRITER, run, trial

REQUESTS, IN_FLIGHT, TOKENS = 40, 8, 8


def profile(model: str, kind: str, *options: str) -> dict[str, dict[str, float]]:
    """What aiperf says of a small load."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("aiperf"), "profile"),
                *("--model", model, "--url", BASE_URL.removesuffix("/v1")),
                *("--endpoint-type", kind, "--ui", "none"),
                *("--request-count", str(REQUESTS), "--concurrency", str(IN_FLIGHT)),
                *("--isl", "16", "--tokenizer", SUBJECT["tokenizer"]),
                *("--artifact-dir", folder, *options),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        [file] = Path(folder).rglob("profile_export_aiperf.json")
        told: dict[str, dict[str, float]] = json.loads(file.read_text())
    assert told["request_count"]["avg"] == REQUESTS
    assert not told.get("error_request_count", {}).get("avg")
    return told


@trial
def chats() -> None:
    """chats, streamed"""
    lengths = ("--osl", str(TOKENS), "--osl-stddev", "0")
    fields = ("--extra-inputs", "ignore_eos:true", "--use-server-token-count")
    told = profile(WRITER, "chat", "--streaming", *lengths, *fields)
    assert told["time_to_first_token"]["p50"] > 0
    assert told["output_sequence_length"]["avg"] == TOKENS


@trial
def completions() -> None:
    """completions, whole"""
    profile(WRITER, "completions", "--osl", str(TOKENS))


@trial
def vectors() -> None:
    """embeddings"""
    profile(EMBEDDER, "embeddings")


run()
