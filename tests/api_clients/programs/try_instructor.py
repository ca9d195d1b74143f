"""instructor: values of a class from chats."""

from typing import Literal

import instructor
import openai
from pydantic import BaseModel
from trials import BASE_URL, HI, WRITER, run, trial


class Verdict(BaseModel):
    """What was found."""

    colour: Literal["red", "blue"]
    good: bool


client = openai.OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0)
ASKED = {"model": WRITER, "messages": HI, "temperature": 0, "max_retries": 0}


def check(mode: instructor.Mode, **options: object) -> None:
    given = instructor.from_openai(client, mode=mode)
    told = given.chat.completions.create(response_model=Verdict, **ASKED, **options)
    assert told.colour in ("red", "blue")
    whole, raw = given.chat.completions.create_with_completion(
        response_model=Verdict, **ASKED, **options
    )
    assert whole.model_dump() == told.model_dump()
    assert raw.model == WRITER


@trial
def tools() -> None:
    """mode TOOLS"""
    # Weights by chance would call for ever.
    check(instructor.Mode.TOOLS, parallel_tool_calls=False)


@trial
def schema() -> None:
    """mode JSON_SCHEMA"""
    check(instructor.Mode.JSON_SCHEMA)


@trial
def partial() -> None:
    """values that grow as they stream"""
    given = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    found = list(given.chat.completions.create_partial(response_model=Verdict, **ASKED))
    assert found[-1].colour in ("red", "blue")


run()
