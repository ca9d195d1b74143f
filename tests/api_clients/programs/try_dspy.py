"""DSPy: texts and vectors."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


import dspy
from trials import (
    BASE_URL,
    EMBEDDER,
    EXACT,
    WRITER,
    chat_text,
    is_close,
    run,
    trial,
    vector,
)

KNOWN = {"api_base": BASE_URL, "api_key": "unused"}


@trial
def texts() -> None:
    """a model's text, several at once"""
    model = dspy.LM(f"openai/{WRITER}", cache=False, num_retries=0, **EXACT, **KNOWN)
    assert model("hi") == [chat_text()]
    assert model("hi", n=2, temperature=0.0) == [chat_text()] * 2


@trial
def embeddings() -> None:
    """embeddings"""
    told = dspy.Embedder(f"openai/{EMBEDDER}", caching=False, **KNOWN)(["one", "two"])
    for each, text in zip(told, ("one", "two"), strict=True):
        assert is_close([float(number) for number in each], vector(text))


run()
