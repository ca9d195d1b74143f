"""langchain-openai: chats, chains, tools, formats, vectors."""

import asyncio
from typing import Literal

import httpx
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from trials import (
    BASE_URL,
    EMBEDDER,
    EXACT,
    SUBJECT,
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

KNOWN = {"base_url": BASE_URL, "api_key": "unused", "max_retries": 0}
EXACT_MODEL = {"model": WRITER, **EXACT, **KNOWN}
chat = ChatOpenAI(stream_usage=True, **EXACT_MODEL)
#: With room for the end of a format.
roomy = ChatOpenAI(model=WRITER, temperature=0, max_tokens=200, **KNOWN)


class Verdict(BaseModel):
    """What was found."""

    colour: Literal["red", "blue"]
    good: bool


@tool
def look_up(colour: Literal["red", "blue"]) -> str:
    """Look a colour up."""
    return colour


@trial
def invoke() -> None:
    """invoke, ainvoke"""
    told = chat.invoke("hi")
    assert told.content == chat_text()
    assert told.usage_metadata["output_tokens"] == TOKENS
    assert told.response_metadata["finish_reason"] == "length"
    assert asyncio.run(chat.ainvoke("hi")).content == chat_text()
    assert OpenAI(**EXACT_MODEL).invoke("Once") == completed("Once")


@trial
def stream() -> None:
    """stream, astream_events"""
    chunks = list(chat.stream("hi"))
    assert "".join(each.content for each in chunks) == chat_text()
    used = [each.usage_metadata for each in chunks if each.usage_metadata]
    assert sum(each["output_tokens"] for each in used) == TOKENS
    assert "".join(OpenAI(**EXACT_MODEL).stream("Once")) == completed("Once")

    async def events() -> list[str]:
        # Its connections belong to the loop that made them.
        fresh = ChatOpenAI(http_async_client=httpx.AsyncClient(), **EXACT_MODEL)
        found = fresh.astream_events("hi", version="v2")
        return [
            each["data"]["chunk"].content
            async for each in found
            if each["event"] == "on_chat_model_stream"
        ]

    assert "".join(asyncio.run(events())) == chat_text()


@trial
def batch() -> None:
    """chains, batch, logprobs"""
    prompt = ChatPromptTemplate.from_messages([("human", "{word}")])
    told = (prompt | chat).batch([{"word": "hi"}, {"word": "you"}, {"word": "hi"}])
    you = chat_text([{"role": "user", "content": "you"}])
    assert [each.content for each in told] == [chat_text(), you, chat_text()]
    texts = OpenAI(batch_size=2, **EXACT_MODEL).generate(["Once", "In a", "Once"])
    assert [each[0].text for each in texts.generations] == [
        completed("Once"),
        completed("In a"),
        completed("Once"),
    ]
    scored = chat.bind(logprobs=True, top_logprobs=2).invoke("hi")
    assert len(scored.response_metadata["logprobs"]["content"]) == TOKENS


@trial
def formats() -> None:
    """structured output: json_schema, function_calling, json_mode"""
    for method in ("json_schema", "function_calling"):
        told = roomy.with_structured_output(Verdict, method=method).invoke("hi")
        assert told.colour in ("red", "blue"), method
    streamed = list(roomy.with_structured_output(Verdict).stream("hi"))
    assert streamed[-1].colour in ("red", "blue")


@trial
def tools() -> None:
    """tools: bound, streamed, results sent back"""
    # Weights by chance would call for ever.
    once = {"tool_choice": "look_up", "parallel_tool_calls": False}
    bound = roomy.bind_tools([look_up], **once)
    told = bound.invoke("hi")
    [call] = told.tool_calls
    assert call["name"] == "look_up"
    assert call["args"]["colour"] in ("red", "blue")
    whole = None
    for chunk in bound.stream("hi"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"] == call["args"]
    history = [HumanMessage("hi"), told, ToolMessage("blue", tool_call_id=call["id"])]
    assert chat.invoke(history).content
    automatic = chat.bind_tools([look_up]).invoke("hi")
    assert automatic.content or automatic.tool_calls


@trial
def responses() -> None:
    """use_responses_api: invoke, stream"""
    asked = ChatOpenAI(
        model=WRITER, temperature=0, max_tokens=9, use_responses_api=True, **KNOWN
    )
    whole = asked.invoke("hi").text
    assert whole
    assert "".join(each.text for each in asked.stream("hi")) == whole


@trial
def embeddings() -> None:
    """embeddings: texts, and token ids of a tokenizer (check_embedding_ctx_length)"""
    plain = OpenAIEmbeddings(model=EMBEDDER, check_embedding_ctx_length=False, **KNOWN)
    assert are_vectors(plain.embed_documents(list(TEXTS)))
    assert is_close(plain.embed_query("one"), vector("one"))
    assert is_close(asyncio.run(plain.aembed_query("one")), vector("one"))
    counted = OpenAIEmbeddings(
        model=EMBEDDER,
        tiktoken_enabled=False,
        tiktoken_model_name=SUBJECT["tokenizer"],
        **KNOWN,
    )
    assert is_close(counted.embed_query("one two"), vector("one two"))


run()
