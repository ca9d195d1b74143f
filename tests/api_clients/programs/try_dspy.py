"""DSPy: texts and vectors."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


import dspy
from trials import (
    BASE_URL,
    EMBEDDER,
    EXACT,
    TEXTS,
    WRITER,
    are_vectors,
    chat_text,
    run,
    trial,
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
    embedder = dspy.Embedder(f"openai/{EMBEDDER}", caching=False, **KNOWN)
    assert are_vectors(embedder(list(TEXTS)))


run()
