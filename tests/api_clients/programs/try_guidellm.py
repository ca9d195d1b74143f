"""guidellm: every request of a small load is answered, with as many tokens."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from trials import BASE_URL, SUBJECT, WRITER, ask, run, trial

REQUESTS, TOKENS = 20, 8


def load(path: str, expected: int = TOKENS) -> None:
    """Four requests at once, of random words."""
    target = f"target={BASE_URL.removesuffix('/v1')},model={WRITER}"
    words = f"kind=synthetic_text,prompt_tokens=32,output_tokens={TOKENS}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "guidellm", "run"),
                *("--backend", f"kind=openai_http,{target},request_format={path}"),
                *("--tokenizer", f"kind=huggingface_auto,model={SUBJECT['tokenizer']}"),
                *("--data", words),
                *("--profile", "kind=concurrent,streams=4"),
                *("--constraint", f"kind=max_requests,count={REQUESTS}"),
                *("--output", f"kind=json,path={report}", "--disable-console"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        [benchmark] = json.loads(report.read_text())["benchmarks"]
    requests = benchmark["requests"]
    assert not requests["errored"]
    used = [each["output_metrics"]["text_tokens"] for each in requests["successful"]]
    assert used == [expected] * REQUESTS, used


@trial
def completions() -> None:
    """completions, streamed"""
    load("/v1/completions")


@trial
def chats() -> None:
    """chats, streamed"""
    load("/v1/chat/completions")


@trial
def responses() -> None:
    """responses, streamed"""
    # SGLang takes two off what a response may have.
    answer = ask(
        "responses",
        True,
        model=WRITER,
        input="hi",
        max_output_tokens=TOKENS,
        temperature=0,
    )
    load("/v1/responses", answer["usage"]["output_tokens"])


run()
