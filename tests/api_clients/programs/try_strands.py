"""strands-agents: agents by chats and by responses, with and without tools."""

from typing import Any, Literal

from pydantic import BaseModel
from strands import Agent, tool
from strands.models.openai import OpenAIModel
from strands.models.openai_responses import OpenAIResponsesModel
from strands.types.exceptions import MaxTokensReachedException
from trials import BASE_URL, HI, WRITER, chat_text, raised, run, trial

#: Weights by chance would call for ever.
EXACT = {"temperature": 0, "parallel_tool_calls": False}


class Verdict(BaseModel):
    """What was found."""

    colour: Literal["red", "blue"]


@tool
def look_up(colour: str) -> str:
    """Look a colour up."""
    return colour


def agent(kind: Any = OpenAIModel, tools: Any = (), **params: Any) -> Any:
    known = {"base_url": BASE_URL, "api_key": "unused", "max_retries": 0}
    model = kind(client_args=known, model_id=WRITER, params={**EXACT, **params})
    return Agent(model=model, tools=list(tools), callback_handler=None)


def said(asked: Any) -> str:
    """What an agent has said when its tokens are at an end, which it calls an error."""
    raised(MaxTokensReachedException, lambda: asked("hi"))
    return str(asked.messages[1]["content"][0]["text"])


@trial
def texts() -> None:
    """chats, streamed: without tools, with one"""
    text = chat_text()
    assert said(agent(max_tokens=12)) == text
    assert said(agent(tools=[look_up], max_tokens=12))


@trial
def values() -> None:
    """chats: a value"""
    asked = agent(max_tokens=100)
    # The way by a tool goes on calling, with weights by chance.
    assert asked.structured_output(Verdict, "hi").colour in ("red", "blue")


@trial
def responses() -> None:
    """responses, streamed"""
    text = said(agent(OpenAIResponsesModel, max_output_tokens=16))
    assert text[:20] == chat_text(HI)[:20]


run()
