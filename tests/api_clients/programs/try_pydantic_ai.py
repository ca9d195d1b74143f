"""pydantic-ai: agents with texts, values, tools and streams."""

import asyncio
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from trials import (
    BASE_URL,
    EMBEDDER,
    EXACT,
    TEXTS,
    TOKENS,
    WRITER,
    are_vectors,
    chat_text,
    run,
    trial,
)

provider = OpenAIProvider(base_url=BASE_URL, api_key="unused")
chats = OpenAIChatModel(WRITER, provider=provider)
responses = OpenAIResponsesModel(WRITER, provider=provider)
# Weights by chance would call for ever.
ROOMY = {"temperature": 0, "max_tokens": 200, "parallel_tool_calls": False}


class Verdict(BaseModel):
    """What was found."""

    colour: Literal["red", "blue"]
    good: bool


@trial
def texts() -> None:
    """a text: whole, streamed"""
    agent = Agent(chats, model_settings=EXACT)
    told = agent.run_sync("hi")
    assert told.output == chat_text()
    assert told.usage.output_tokens == TOKENS

    async def stream() -> str:
        async with agent.run_stream("hi") as parts:
            return "".join([each async for each in parts.stream_text(delta=True)])

    assert asyncio.run(stream()) == chat_text()


@trial
def values() -> None:
    """a value: by a tool, by a format"""
    for kind in (Verdict, NativeOutput(Verdict)):
        told = Agent(chats, output_type=kind, model_settings=ROOMY).run_sync("hi")
        assert told.output.colour in ("red", "blue")


@trial
def by_responses() -> None:
    """responses: whole, streamed, a value"""
    agent = Agent(responses, model_settings=EXACT)
    told = agent.run_sync("hi").output
    assert told

    async def stream() -> str:
        async with agent.run_stream("hi") as parts:
            return "".join([each async for each in parts.stream_text(delta=True)])

    assert asyncio.run(stream()) == told
    kind = NativeOutput(Verdict)
    value = Agent(responses, output_type=kind, model_settings=ROOMY).run_sync("hi")
    assert value.output.colour in ("red", "blue")


@trial
def embeddings() -> None:
    """embeddings"""
    embedder = Embedder(OpenAIEmbeddingModel(EMBEDDER, provider=provider))
    assert are_vectors(embedder.embed_documents_sync(list(TEXTS)).embeddings)


run()
