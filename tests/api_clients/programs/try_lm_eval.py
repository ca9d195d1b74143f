"""lm-eval: its scores and texts through the gateway are the engine's own."""

import json
import os
import tempfile
from pathlib import Path

from trials import BASE_URL, SUBJECT, WRITER, run, trial

os.environ["HF_HUB_OFFLINE"] = "1"

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

QUESTIONS, CHOICES = 12, ("red", "green", "blue as the sea")
#: Log-likelihoods of one request differ by no more: engines add up in any order.
MOST_APART = 0.01
TASKS = {
    "colours": """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {file}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
""",
    "passages": """
task: passages
dataset_path: json
dataset_kwargs: {{data_files: {file}}}
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: word_perplexity}}]
""",
    "sayings": """
task: sayings
dataset_path: json
dataset_kwargs: {{data_files: {file}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n\\n\\n"], max_gen_toks: 8, temperature: 0}}
metric_list: [{{metric: exact_match}}]
""",
}
folder = Path(tempfile.mkdtemp())
file = folder / "questions.jsonl"
file.write_text(
    "".join(
        json.dumps({"question": f"Number {n} is", "choices": CHOICES, "answer": n % 3})
        + "\n"
        for n in range(QUESTIONS)
    )
)
for name, text in TASKS.items():
    (folder / f"{name}.yaml").write_text(text.format(file=file))
manager = TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(task: str, kind: str, is_direct: bool) -> list[object]:
    """The model's answers to a task, in the order of its questions."""
    base = f"{SUBJECT['engine_url']}/v1" if is_direct else BASE_URL
    os.environ["OPENAI_API_KEY"] = SUBJECT["engine_key"] if is_direct else "unused"
    is_chat = "chat" in kind
    results = simple_evaluate(
        model=kind,
        model_args={
            "model": WRITER,
            "base_url": f"{base}/{'chat/' if is_chat else ''}completions",
            "num_concurrent": 2,
            "max_retries": 1,
            "tokenizer": SUBJECT["tokenizer"],
        },
        tasks=[task],
        task_manager=manager,
        batch_size=1 if is_chat else 4,
        apply_chat_template=is_chat,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    samples = sorted(results["samples"][task], key=lambda each: each["doc_id"])
    return [answer for each in samples for resps in each["resps"] for answer in resps]


def likelihood(answer: object) -> float:
    return float(answer[0] if isinstance(answer, tuple) else answer)


def check_scores(task: str, number: int) -> None:
    found, expected = (
        evaluate(task, "local-completions", is_direct) for is_direct in (False, True)
    )
    assert len(found) == number
    for ours, its in zip(found, expected, strict=True):
        assert likelihood(ours) < 0
        assert abs(likelihood(ours) - likelihood(its)) < MOST_APART


@trial
def likelihoods() -> None:
    """local-completions: log-likelihoods of choices"""
    check_scores("colours", QUESTIONS * len(CHOICES))


@trial
def rolling() -> None:
    """local-completions: rolling log-likelihoods"""
    check_scores("passages", QUESTIONS)


@trial
def texts() -> None:
    """local-completions: generate_until"""
    found = evaluate("sayings", "local-completions", False)
    assert found == evaluate("sayings", "local-completions", True)
    assert len(set(found)) > 1


@trial
def chats() -> None:
    """local-chat-completions: generate_until"""
    found = evaluate("sayings", "local-chat-completions", False)
    assert found == evaluate("sayings", "local-chat-completions", True)
    assert len(found) == QUESTIONS


run()
