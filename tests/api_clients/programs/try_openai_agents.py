"""openai-agents: agents by chats and by responses, which go on from one another."""

import asyncio
from typing import Any, Literal

from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from trials import BASE_URL, TOKENS, WRITER, chat_text, run, trial

set_tracing_disabled(True)
SYSTEM = {"role": "system", "content": "Be short."}


class Verdict(BaseModel):
    """What was found; weights by chance come to its end."""

    colour: Literal["red", "blue"]


@function_tool
def look_up(colour: Literal["red", "blue"]) -> str:
    """Look a colour up."""
    return colour


def agent(kind: type[Any], settings: ModelSettings | None = None, **given: Any) -> Any:
    # Its connections belong to the loop that made them.
    client = AsyncOpenAI(base_url=BASE_URL, api_key="unused", max_retries=0)
    model: Model = kind(WRITER, client)
    asked = ModelSettings(temperature=0).resolve(settings)
    return Agent(
        "a", instructions="Be short.", model=model, model_settings=asked, **given
    )


async def by(kind: type[Any]) -> None:
    """A value whole and streamed, a tool, a history."""
    told = await Runner.run(agent(kind, output_type=Verdict), "hi")
    assert told.final_output.colour in ("red", "blue")
    streamed = Runner.run_streamed(agent(kind, output_type=Verdict), "hi")
    events = [each.type async for each in streamed.stream_events()]
    assert "raw_response_event" in events
    assert streamed.final_output == told.final_output
    history = [*told.to_input_list(), {"role": "user", "content": "on"}]
    again = await Runner.run(agent(kind, output_type=Verdict), history)
    assert again.final_output.colour in ("red", "blue")
    # Weights by chance would call for ever.
    once = ModelSettings(tool_choice="look_up", parallel_tool_calls=False)
    caller = agent(kind, once, tools=[look_up], tool_use_behavior="stop_on_first_tool")
    assert (await Runner.run(caller, "hi")).final_output in ("red", "blue")


@trial
def chats() -> None:
    """chats: a text, a value, streamed, a tool, a history"""
    kind, few = OpenAIChatCompletionsModel, ModelSettings(max_tokens=TOKENS)
    told = asyncio.run(Runner.run(agent(kind, few), "hi"))
    assert told.final_output == chat_text([SYSTEM, {"role": "user", "content": "hi"}])
    asyncio.run(by(kind))


@trial
def responses() -> None:
    """responses: a value, streamed, a tool, a history"""
    asyncio.run(by(OpenAIResponsesModel))


@trial
def going_on() -> None:
    """responses: previous_response_id, the same as with all that was said"""

    async def main() -> None:
        first = await Runner.run(agent(OpenAIResponsesModel, output_type=Verdict), "hi")
        used = []
        for given, known in (
            ("on", {"previous_response_id": first.last_response_id}),
            ([*first.to_input_list(), {"role": "user", "content": "on"}], {}),
        ):
            asked = agent(OpenAIResponsesModel, output_type=Verdict)
            told = await Runner.run(asked, given, **known)
            used.append(told.context_wrapper.usage.input_tokens)
        assert used[0] == used[1] > first.context_wrapper.usage.input_tokens

    asyncio.run(main())


run()
