"""LlamaIndex's OpenAI-like classes: chats, completions, tools, vectors."""

import asyncio
from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from trials import (
    BASE_URL,
    EMBEDDER,
    TEXTS,
    TOKENS,
    WRITER,
    are_vectors,
    chat_text,
    completed,
    is_close,
    run,
    trial,
    vector,
)

KNOWN = {"api_base": BASE_URL, "api_key": "unused", "max_retries": 0}
EXACT_MODEL = {"model": WRITER, "temperature": 0, "max_tokens": TOKENS, **KNOWN}
chat = OpenAILike(is_chat_model=True, **EXACT_MODEL)
HELLO = [ChatMessage(role="user", content="hi")]


@trial
def chats() -> None:
    """chats: whole, streamed, asynchronous"""
    assert chat.chat(HELLO).message.content == chat_text()
    assert "".join(each.delta for each in chat.stream_chat(HELLO)) == chat_text()
    assert asyncio.run(chat.achat(HELLO)).message.content == chat_text()


@trial
def completions() -> None:
    """completions: whole, streamed"""
    model = OpenAILike(is_chat_model=False, **EXACT_MODEL)
    assert model.complete("Once").text == completed("Once")
    parts = [each.delta for each in model.stream_complete("Once")]
    assert "".join(parts) == completed("Once")


@trial
def tools() -> None:
    """tools"""

    def look_up(colour: Literal["red", "blue"]) -> str:
        """Look a colour up."""
        return colour

    model = OpenAILike(
        is_chat_model=True,
        is_function_calling_model=True,
        **EXACT_MODEL | {"max_tokens": 100},
    )
    told = model.chat_with_tools(
        [FunctionTool.from_defaults(look_up)],
        user_msg="hi",
        tool_required=True,
        allow_parallel_tool_calls=False,
    )
    [call] = model.get_tool_calls_from_response(told)
    assert call.tool_kwargs["colour"] in ("red", "blue")


@trial
def embeddings() -> None:
    """embeddings"""
    model = OpenAILikeEmbedding(model_name=EMBEDDER, **KNOWN)
    assert are_vectors(model.get_text_embedding_batch(list(TEXTS)))
    assert is_close(model.get_query_embedding("one"), vector("one"))


run()
