"""What a model's ``sampling`` may say: what each of its requests could say."""

import math
from typing import Any

import pytest

from modelserver.errors import ConfigurationError
from modelserver.fleet.file import make_fleet


def fleet_of(sampling: dict[str, Any]) -> Any:
    model = {"name": "m", "engine": "command", "command": ["true"]}
    return make_fleet("fleet.toml", {"models": [model | {"sampling": sampling}]})


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        ({"stream": True}, "stream"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1"),
        ({"n": 0}, "n must be a whole number from 1"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": math.inf}, "top_p"),
        ({"logit_bias": {"7": -math.inf}}, "logit_bias"),
        ({"temprature": 0}, 'did you mean "temperature"'),
        ({"deadline": 5}, "deadline"),
        ({"model": "other"}, "model"),
        ({"prompt": "a"}, "prompt"),
    ],
)
def test_what_no_request_could_say_is_refused_with_the_file(
    sampling: dict[str, Any], told: str
):
    with pytest.raises(ConfigurationError, match=told):
        fleet_of(sampling)


@pytest.mark.parametrize(
    "sampling", [{}, {"n": 4}, {"max_tokens": 5, "temperature": 0.0}, {"top_k": 3}]
)
def test_what_a_request_may_say_is_taken(sampling: dict[str, Any]):
    assert fleet_of(sampling).models[0].sampling == sampling
