"""LiteLLM's SDK: chats, streams, tools, completions, vectors, responses."""

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from trials import (
    BASE_URL,
    EMBEDDER,
    EXACT,
    HI,
    RESPONSE,
    TEXTS,
    TOKENS,
    TOOL,
    WRITER,
    are_vectors,
    chat_streamed,
    chat_text,
    completed,
    is_colour,
    raised,
    response_streamed,
    run,
    trial,
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
        assert chat_streamed(chunks) == chat_text()
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
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        **KNOWN,
    )
    assert is_colour(told.choices[0].message.tool_calls[0].function.arguments)


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
            model=f"{prefix}/{EMBEDDER}", input=list(TEXTS), **KNOWN
        )
        assert are_vectors(each["embedding"] for each in told.data)


@trial
def responses() -> None:
    """responses: whole and streamed"""
    asked = {"model": f"openai/{WRITER}", **RESPONSE, **KNOWN}
    whole = litellm.responses(**asked)
    text = response_streamed(litellm.responses(**asked, stream=True))
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
