"""inspect-ai: evaluations of its own, by chats and by responses."""

import os
import tempfile
from collections.abc import Callable

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from trials import BASE_URL, EXACT, TOKENS, WRITER, ask, chat_text, run, trial

os.environ["INSPECT_DISPLAY"] = "none"
WORDS = ["hi", "you", "there", "one", "two", "three"]


def check(target: Callable[[str], str], **options: object) -> None:
    """Answers are right where they include what the engine itself says."""
    samples = [Sample(word, target=target(word).strip()) for word in WORDS]
    model = get_model(
        f"openai-api/gateway/{WRITER}",
        base_url=BASE_URL,
        api_key="unused",
        config=GenerateConfig(max_retries=0, **EXACT),
        **options,
    )
    exactly = includes(ignore_case=False)
    task = Task(dataset=samples, solver=[generate()], scorer=exactly)
    with tempfile.TemporaryDirectory() as folder:
        [log] = eval(task, model=model, log_dir=folder, display="none")
    assert log.status == "success", log.error
    [score] = log.results.scores
    assert log.results.completed_samples == len(WORDS)
    assert score.metrics["accuracy"].value == 1


def responded(word: str) -> str:
    """What the engine itself responds to a word."""
    asked = {"input": word, "temperature": 0, "max_output_tokens": TOKENS}
    answer = ask("responses", is_direct=True, model=WRITER, **asked)
    return str(answer["output"][0]["content"][0]["text"])


@trial
def chats() -> None:
    """an evaluation by chats"""
    check(lambda word: chat_text([{"role": "user", "content": word}]))


@trial
def responses() -> None:
    """an evaluation by responses"""
    check(responded, responses_api=True)


run()
