"""Answers in parts. A streamed text counts on from the last number of its prompt.

So whoever goes on from half of a text, as another engine, gives the rest of the same.
"""

import asyncio
import os
import re
from collections.abc import Callable

import orjson
from aiohttp import web

from tests.engine.openai_api import Ask, Json

#: How often what was generated is looked at, in seconds.
LOOK_SECONDS = 0.02
_OBJECTS = {"chat": "chat.completion.chunk", "completion": "text_completion"}


def counted(text: str, tokens: int) -> list[str]:
    """The tokens after a text.

    >>> counted("one, then 7 8", 2), counted("hello", 2)
    ([' 9', ' 10'], [' 1', ' 2'])
    """
    found = re.search(r"(\d+)\s*$", text)
    first = int(found[1]) + 1 if found else 1
    return [f" {number}" for number in range(first, first + tokens)]


class Streaming:
    """Sends one answer's chunks as its tokens come."""

    def __init__(self, ask: Ask, rid: str, model: str, created: int) -> None:
        self._ask = ask
        self._head = {
            "id": rid,
            "object": _OBJECTS[ask.kind],
            "created": created,
            "model": model,
        }
        self._tokens = [counted(text, ask.job.max_tokens) for text in ask.texts]

    @property
    def _is_chat(self) -> bool:
        return self._ask.kind == "chat"

    async def send(
        self,
        request: web.BaseRequest,
        running: "asyncio.Task[int]",
        generated: Callable[[], int],
        dies_at: int = 0,
    ) -> web.StreamResponse:
        """Send them all. The process ends where ``dies_at`` tokens were sent."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        sent, most = 0, self._ask.job.max_tokens
        if self._is_chat:
            greeting = {"role": "assistant", "content": ""}
            await self._write(response, self._chunks([{"delta": greeting}]))
        while sent < most:
            await asyncio.sleep(LOOK_SECONDS)
            ended = running.done()
            now = running.result() if ended else min(generated(), most - 1)
            for place in range(sent, now):
                await self._write(response, self._token(place, place == most - 1))
                if dies_at and place + 1 >= dies_at:
                    os._exit(1)
            sent = now
            if ended:
                break
        if sent < most:
            last = {"finish_reason": "abort", **self._piece("")}
            await self._write(response, self._chunks([last]))
        if self._ask.stream_usage:
            last = {**self._head, "choices": [], **self._usage(sent)}
            await self._write(response, last)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _usage(self, tokens: int) -> Json:
        prompt = self._ask.job.prompt_tokens
        width = len(self._tokens) * self._ask.n
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": tokens * width,
            "total_tokens": prompt + tokens * width,
        }
        return {"usage": usage}

    def _token(self, place: int, is_last: bool) -> Json:
        reason = "length" if is_last else None
        return self._chunks(
            [
                {"finish_reason": reason, **self._piece(tokens[place])}
                for tokens in self._tokens
                for _ in range(self._ask.n)
            ]
        )

    def _piece(self, text: str) -> Json:
        return {"delta": {"content": text}} if self._is_chat else {"text": text}

    def _chunks(self, choices: list[Json]) -> Json:
        numbered = [
            {"index": index, "finish_reason": None, "logprobs": None, **choice}
            for index, choice in enumerate(choices)
        ]
        return {**self._head, "choices": numbered}

    async def _write(self, response: web.StreamResponse, chunk: Json) -> None:
        await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
