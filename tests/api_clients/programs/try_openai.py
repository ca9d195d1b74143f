"""OpenAI's own client: every part of it that the gateway has."""

import asyncio
import io
import json
import time
from typing import Literal

import openai
from pydantic import BaseModel
from trials import (
    BASE_URL,
    DIMENSIONS,
    EMBEDDER,
    EXACT,
    HI,
    LOOK_UP,
    RESPONSE,
    TOKENS,
    TOOL,
    WRITER,
    are_vectors,
    chat_streamed,
    chat_text,
    completed,
    is_close,
    is_colour,
    raised,
    response_streamed,
    run,
    trial,
    vector,
)

KNOWN = {"base_url": BASE_URL, "api_key": "unused", "max_retries": 0}
client = openai.OpenAI(**KNOWN)
#: As exact, where vLLM wants to draw: it has one token to draw from.
SURE = {"temperature": 1, "extra_body": {"top_k": 1}, "max_tokens": TOKENS}
NAMED = {"type": "function", "function": {"name": "look_up"}}


class Verdict(BaseModel):
    colour: Literal["red", "blue"]
    good: bool


@trial
def models() -> None:
    """models"""
    listed = {each.id: each for each in client.models.list()}
    assert {WRITER, EMBEDDER} <= set(listed)
    assert client.models.retrieve(WRITER) == listed[WRITER]


@trial
def completions() -> None:
    """completions: texts, token ids, echo, logprobs, streams"""
    told = client.completions.create(
        model=WRITER, prompt=["Once", "In a", "Once"], n=2, **SURE
    )
    texts = [each.text for each in told.choices]
    assert texts[0] == texts[1] == texts[4] == completed("Once")
    assert texts[2] == completed("In a")
    assert [each.index for each in told.choices] == list(range(6))
    assert told.usage.completion_tokens == 6 * TOKENS
    ids = client.completions.create(model=WRITER, prompt=[[5, 6, 7], [8, 9]], **EXACT)
    assert ids.choices[0].text == completed([5, 6, 7])
    assert ids.choices[1].text == completed([8, 9])
    scored = client.completions.create(
        model=WRITER, prompt="Once upon", echo=True, logprobs=2, **EXACT
    )
    likely = scored.choices[0].logprobs
    assert scored.choices[0].text == "Once upon" + completed("Once upon")
    assert len(likely.tokens) == len(likely.token_logprobs) > TOKENS
    assert all(each <= 0 for each in likely.token_logprobs if each is not None)
    stream = client.completions.create(
        model=WRITER, prompt=["Once", "In a"], stream=True, **EXACT
    )
    parts = ["", ""]
    for chunk in stream:
        for choice in chunk.choices:
            parts[choice.index] += choice.text
    assert parts == [completed("Once"), completed("In a")]


@trial
def chats() -> None:
    """chats: n, logprobs, streams with usage"""
    asked = {"model": WRITER, "messages": HI, **EXACT}
    told = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert [each.message.content for each in told.choices] == [chat_text()]
    both = client.chat.completions.create(model=WRITER, messages=HI, n=2, **SURE)
    assert [each.message.content for each in both.choices] == [chat_text()] * 2
    assert len(told.choices[0].logprobs.content) == TOKENS
    assert all(len(each.top_logprobs) == 2 for each in told.choices[0].logprobs.content)
    assert {each.finish_reason for each in told.choices} == {"length"}
    usage = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options=usage)
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == TOKENS
    text = chat_text()
    assert chat_streamed(chunks) == text
    stop = text[len(text) // 2 :][:3]
    with client.chat.completions.stream(**asked, stop=stop) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert kinds[-1] == "content.done"
    assert final.choices[0].message.content == text[: text.index(stop)]


@trial
def formats() -> None:
    """structured outputs: json_schema, parse, streamed parse"""
    asked = {"model": WRITER, "messages": HI, "temperature": 0}
    told = client.chat.completions.parse(**asked, response_format=Verdict)
    assert told.choices[0].message.parsed.colour in ("red", "blue")
    with client.chat.completions.stream(**asked, response_format=Verdict) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == told.choices[0].message.parsed
    text = client.chat.completions.create(
        **asked, max_tokens=TOKENS, response_format={"type": "json_object"}
    )
    assert text.choices[0].message.content.startswith("{")


@trial
def tools() -> None:
    """tools: required, named, streamed, results sent back"""
    asked = {"model": WRITER, "messages": HI, "temperature": 0, "tools": [TOOL]}
    # Weights by chance would call for ever.
    asked["parallel_tool_calls"] = False
    for choice in ("required", NAMED):
        told = client.chat.completions.create(
            **asked, tool_choice=choice, max_tokens=100
        )
        call = told.choices[0].message.tool_calls[0]
        assert call.function.name == "look_up"
        assert is_colour(call.function.arguments)
    arguments, names = "", []
    for chunk in client.chat.completions.create(
        **asked, tool_choice=NAMED, stream=True, max_tokens=100
    ):
        for part in chunk.choices[0].delta.tool_calls or ():
            names += [part.function.name] if part.function.name else []
            arguments += part.function.arguments or ""
    assert names == ["look_up"]
    assert json.loads(arguments) == json.loads(call.function.arguments)
    said = told.choices[0].message.model_dump(exclude_none=True)
    result = {"role": "tool", "tool_call_id": call.id, "content": "blue"}
    messages = [*HI, said, result]
    after = client.chat.completions.create(model=WRITER, messages=messages, **EXACT)
    assert after.choices[0].message.content == chat_text(messages)


@trial
def embeddings() -> None:
    """embeddings: base64, float, token ids, lists"""
    told = client.embeddings.create(model=EMBEDDER, input=["one", "two three"])
    assert are_vectors((each.embedding for each in told.data), ("one", "two three"))
    floats = client.embeddings.create(
        model=EMBEDDER, input="one", encoding_format="float"
    )
    assert is_close(floats.data[0].embedding, vector("one"))
    ids = client.embeddings.create(model=EMBEDDER, input=[[5, 6], [7]])
    assert [len(each.embedding) for each in ids.data] == [DIMENSIONS] * 2
    assert is_close(ids.data[0].embedding, vector([5, 6]))


@trial
def responses() -> None:
    """responses: whole, streamed events, parse"""
    asked = {"model": WRITER, **RESPONSE}
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    kinds = [each.type for each in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert [each.sequence_number for each in events] == list(range(len(events)))
    text = response_streamed(events)
    assert text == whole.output_text == events[-1].response.output_text
    assert events[-1].response.model == WRITER
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
    assert "response.output_text.delta" in kinds
    asked = {"model": WRITER, "input": "hi", "temperature": 0, "text_format": Verdict}
    parsed = client.responses.parse(**asked).output_parsed
    with client.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_parsed == parsed
    assert parsed.colour in ("red", "blue")


@trial
def kept_responses() -> None:
    """responses: gone on from, shown, listed, deleted"""
    asked = {"model": WRITER, **RESPONSE}
    first = client.responses.create(**asked)
    asked["input"] = "on"
    more = {"previous_response_id": first.id}
    whole = client.responses.create(**asked, **more)
    assert whole.previous_response_id == first.id
    *_, last = client.responses.create(**asked, **more, stream=True)
    assert last.response.output_text == whole.output_text
    shown = client.responses.retrieve(last.response.id)
    assert shown.output_text == whole.output_text
    listed = client.responses.input_items.list(whole.id, order="asc", limit=2)
    assert [each.role for each in listed] == ["user", "assistant", "user"]
    client.responses.delete(first.id)
    raised(openai.NotFoundError, lambda: client.responses.retrieve(first.id))
    asked |= more
    wrong = raised(openai.BadRequestError, lambda: client.responses.create(**asked))
    assert wrong.code == "previous_response_not_found"


@trial
def response_tools() -> None:
    """responses: a tool"""
    told = client.responses.create(
        model=WRITER,
        input=[{"role": "user", "content": "hi"}],
        instructions="Be short.",
        tools=[{"type": "function", **LOOK_UP}],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    [call] = [each for each in told.output if each.type == "function_call"][:1]
    assert call.name == "look_up"
    assert is_colour(call.arguments)


@trial
def batches() -> None:
    """files and batches: upload, list, cancel, results, delete"""
    lines = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": WRITER, "messages": HI, **EXACT},
        }
        for number in range(3)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    assert (file.bytes, file.purpose) == (len(content), "batch")
    assert client.files.retrieve(file.id).filename == "in.jsonl"
    assert client.files.content(file.id).content == content
    assert file.id in [each.id for each in client.files.list(purpose="batch", limit=5)]
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"why": "a trial"},
    )
    assert made.id in [each.id for each in client.batches.list(limit=2)]
    ends = time.monotonic() + 120
    while made.status not in ("completed", "failed") and time.monotonic() < ends:
        time.sleep(0.3)
        made = client.batches.retrieve(made.id)
    assert (made.status, made.request_counts.completed) == ("completed", 3)
    assert made.metadata == {"why": "a trial"}
    rows = client.files.content(made.output_file_id).text.splitlines()
    for row in map(json.loads, rows):
        message = row["response"]["body"]["choices"][0]["message"]
        assert message["content"] == chat_text()
    assert sorted(json.loads(row)["custom_id"] for row in rows) == [
        "row-0",
        "row-1",
        "row-2",
    ]
    assert client.files.delete(file.id).deleted


@trial
def awaited() -> None:
    """the asynchronous client: 20 at once, a stream left half-way"""

    async def main() -> None:
        async with openai.AsyncOpenAI(**KNOWN) as given:
            asked = {"model": WRITER, "messages": HI, **EXACT}
            told = await asyncio.gather(
                *(given.chat.completions.create(**asked) for _ in range(20))
            )
            assert {each.choices[0].message.content for each in told} == {chat_text()}
            stream = await given.completions.create(
                model=WRITER, prompt="Once", stream=True, **EXACT
            )
            text = "".join([each.choices[0].text async for each in stream])
            assert text == completed("Once")
            left = await given.completions.create(
                model=WRITER, prompt="Once", stream=True, max_tokens=2000
            )
            async for _ in left:
                break
            await left.close()

    asyncio.run(main())


@trial
def errors() -> None:
    """errors: the right class, code and parameter"""
    asked = {"model": WRITER, "messages": HI}
    for change, kind, code, param in (
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
        ({"temperature": -1}, openai.BadRequestError, None, "temperature"),
        (
            {"max_tokens": 10**6},
            openai.BadRequestError,
            "context_length_exceeded",
            "max_tokens",
        ),
        ({"messages": []}, openai.BadRequestError, None, "messages"),
        ({"stream": "yes"}, openai.BadRequestError, None, "stream"),
    ):
        wrong = raised(
            kind, lambda body=asked | change: client.chat.completions.create(**body)
        )
        assert (wrong.code, wrong.param) == (code, param), wrong.body
        assert wrong.request_id.startswith("req_")
    hasty = client.with_options(timeout=0.02).chat.completions
    raised(openai.APITimeoutError, lambda: hasty.create(**asked, max_tokens=400))
    kept = {"model": WRITER, "input": "hi", "previous_response_id": "r"}
    wrong = raised(openai.BadRequestError, lambda: client.responses.create(**kept))
    assert wrong.param == "previous_response_id"


run()
