"""LiteLLM's SDK: chats, streams, tools, completions, vectors, responses."""

import asyncio
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from trials import (
    BASE_URL,
    EMBEDDER,
    EXACT,
    HI,
    LOOK_UP,
    TOKENS,
    WRITER,
    chat_text,
    completed,
    is_close,
    raised,
    run,
    trial,
    vector,
)

KNOWN = {"api_base": BASE_URL, "api_key": "unused", "num_retries": 0}
PREFIXES = ("openai", "hosted_vllm")


@trial
def chats() -> None:
    """chats by openai/ and hosted_vllm/: whole, streamed, asynchronous"""
    for prefix in PREFIXES:
        asked = {"model": f"{prefix}/{WRITER}", "messages": HI, **EXACT, **KNOWN}
        told = litellm.completion(**asked)
        assert told.choices[0].message.content == chat_text()
        assert told.usage.completion_tokens == TOKENS
        usage = {"include_usage": True}
        chunks = list(litellm.completion(**asked, stream=True, stream_options=usage))
        parts = [each.choices[0].delta.content or "" for each in chunks if each.choices]
        assert "".join(parts) == chat_text()
        assert chunks[-1].usage.completion_tokens == TOKENS
        awaited = asyncio.run(litellm.acompletion(**asked))
        assert awaited.choices[0].message.content == chat_text()


@trial
def tools() -> None:
    """tools"""
    told = litellm.completion(
        model=f"openai/{WRITER}",
        messages=HI,
        temperature=0,
        tools=[{"type": "function", "function": LOOK_UP}],
        tool_choice="required",
        parallel_tool_calls=False,
        **KNOWN,
    )
    call = told.choices[0].message.tool_calls[0].function
    assert json.loads(call.arguments)["colour"] in ("red", "blue")


@trial
def completions() -> None:
    """completions"""
    told = litellm.text_completion(
        model=f"text-completion-openai/{WRITER}", prompt="Once", **EXACT, **KNOWN
    )
    assert told.choices[0].text == completed("Once")


@trial
def embeddings() -> None:
    """embeddings by openai/ and hosted_vllm/"""
    for prefix in PREFIXES:
        told = litellm.embedding(
            model=f"{prefix}/{EMBEDDER}", input=["one", "two"], **KNOWN
        )
        for each, text in zip(told.data, ("one", "two"), strict=True):
            assert is_close(each["embedding"], vector(text))


@trial
def responses() -> None:
    """responses: whole and streamed"""
    asked = {
        "model": f"openai/{WRITER}",
        "input": "hi",
        "temperature": 0,
        "max_output_tokens": 9,
        **KNOWN,
    }
    whole = litellm.responses(**asked)
    events = list(litellm.responses(**asked, stream=True))
    text = "".join(
        each.delta for each in events if each.type == "response.output_text.delta"
    )
    assert text == whole.output[0].content[0].text


@trial
def errors() -> None:
    """errors: the right classes"""
    for change, wrong in (
        ({"model": "openai/nobody"}, litellm.NotFoundError),
        ({"max_tokens": 10**6}, litellm.ContextWindowExceededError),
        ({"temperature": -1}, litellm.BadRequestError),
    ):
        asked = {"model": f"openai/{WRITER}", "messages": HI, **KNOWN, **change}
        raised(wrong, lambda asked=asked: litellm.completion(**asked))


run()
