"""A program of a user of OpenAI's client, run by an interpreter that has it.

Its arguments are the base URL and the names of two models; it prints what it got.
"""

import asyncio
import json
import sys
import time

import openai

BASE_URL, WRITER, EMBEDDER = sys.argv[1:]
EXACT = {"temperature": 0, "max_tokens": 12}
SCHEMA = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}},
    "required": ["good"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "user", "content": "hi"}]


def main() -> dict[str, object]:
    client = openai.OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0)
    prompts = ["Once upon", "In a"]
    completion = client.completions.create(model=WRITER, prompt=prompts, **EXACT)
    chat = client.chat.completions.create(model=WRITER, messages=MESSAGES, **EXACT)
    shaped = client.chat.completions.create(
        model=WRITER,
        messages=MESSAGES,
        temperature=0,
        max_tokens=40,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": SCHEMA},
        },
    )
    vectors = client.embeddings.create(model=EMBEDDER, input=["one", "two"])
    as_numbers = client.embeddings.create(
        model=EMBEDDER, input="one", encoding_format="float"
    )
    chunks = list(
        client.chat.completions.create(
            model=WRITER,
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            **EXACT,
        )
    )
    return {
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve(WRITER).id,
        "completion": [choice.text for choice in completion.choices],
        "completion tokens": completion.usage.completion_tokens,
        "chat": chat.choices[0].message.content,
        "shaped": shaped.choices[0].message.content,
        "vectors": [len(each.embedding) for each in vectors.data],
        "same vector": max(
            abs(a - b)
            for a, b in zip(
                vectors.data[0].embedding, as_numbers.data[0].embedding, strict=True
            )
        ),
        "streamed": "".join(
            chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices
        ),
        "streamed tokens": chunks[-1].usage.completion_tokens,
        "responded": responded(client),
        "batch": batch(client),
        "awaited": asyncio.run(awaited()),
        "refused": refused(client),
    }


def responded(client: openai.OpenAI) -> list[str]:
    """A response whole, the text of its stream, and its first and last events."""
    asked = {"model": WRITER, "input": "hi", "temperature": 0, "max_output_tokens": 9}
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    parts = [each for each in events if each.type == "response.output_text.delta"]
    text = "".join(each.delta for each in parts)
    return [whole.output_text, text, events[0].type, events[-1].type]


def batch(client: openai.OpenAI) -> list[object]:
    """A small batch: its status, its counts, its answers by name."""
    lines = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": WRITER, "messages": MESSAGES, **EXACT},
        }
        for number in range(3)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    ends = time.monotonic() + 60
    while made.status in ("validating", "in_progress") and time.monotonic() < ends:
        time.sleep(0.2)
        made = client.batches.retrieve(made.id)
    told = client.files.content(made.output_file_id).text
    texts = {
        each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"]
        for each in map(json.loads, told.splitlines())
    }
    listed = made.id in [each.id for each in client.batches.list()]
    return [made.status, made.request_counts.completed, texts, listed]


async def awaited() -> str:
    async with openai.AsyncOpenAI(base_url=BASE_URL, api_key="unused") as client:
        stream = await client.completions.create(
            model=WRITER, prompt="Once upon", stream=True, **EXACT
        )
        return "".join([chunk.choices[0].text async for chunk in stream])


def refused(client: openai.OpenAI) -> list[object]:
    """What the client makes of errors: its class, the code, the parameter."""
    found: list[object] = []
    for change in (
        {"model": "nobody"},
        {"temperature": -1},
        {"max_tokens": 1_000_000},
        {"messages": []},
    ):
        asked = {"model": WRITER, "messages": MESSAGES} | change
        try:
            client.chat.completions.create(**asked)
        except openai.APIStatusError as error:
            found.append([type(error).__name__, error.code, error.param])
    return found


print(json.dumps(main()))
