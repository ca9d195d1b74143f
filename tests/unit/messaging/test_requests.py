"""What a request must be, and what it becomes for an engine."""

from typing import Any

import pytest
from pydantic import BaseModel

from modelserver.errors import RequestError
from modelserver.messaging.requests import (
    build,
    check_context,
    plain_arguments,
    with_defaults,
    with_model,
)
from modelserver.messaging.wire import CHAT, COMPLETE, EMBED
from modelserver.parameters import plain
from modelserver.values import Kind

HELLO = [{"role": "user", "content": "hi"}]

# (task, args, kwargs, what the error must say)
BAD_REQUESTS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    (COMPLETE, (), {}, r"complete\(\) needs its prompt"),
    (COMPLETE, ("a", "b"), {}, r"one positional argument, the prompt, and got 2; pass"),
    (COMPLETE, ("a",), {"prompt": "b"}, r"complete\(\) got its prompt twice"),
    (COMPLETE, (["a", "b"],), {}, r"one text, not a list; .*map_prompts\(prompts\)"),
    (COMPLETE, (b"a",), {}, r"prompt must be text or .* ids, not bytes"),
    (COMPLETE, (None,), {}, r"prompt must be text or a list of token ids"),
    (COMPLETE, ("",), {}, r"prompt is empty; .* at least one character"),
    (COMPLETE, ("a",), {"model": 3}, r"model must be a model's name, not 3"),
    (COMPLETE, ("a",), {"model": ""}, r"model must be a model's name, not ''"),
    (COMPLETE, ("a",), {"deadline": 0}, r"deadline must be .* above 0, not 0"),
    (COMPLETE, ("a",), {"deadline": "5"}, r"deadline must be a number .* not '5'"),
    (COMPLETE, ("a",), {"deadline": True}, r"deadline must be a number .* not True"),
    (COMPLETE, ("a",), {"stream": True}, r"stream is not offered: .*; leave it out"),
    (COMPLETE, ("a",), {"n": 0}, r"n must be a whole number from 1, not 0"),
    (COMPLETE, ("a",), {"n": "2"}, r"n must be a whole number from 1, not '2'"),
    (COMPLETE, ("a",), {"n": 1.5}, r"n must be a whole number from 1, not 1\.5"),
    (EMBED, ("a",), {"dimensions": 0}, r"dimensions must be .* from 1, not 0"),
    (EMBED, ("a",), {"dimensions": True}, r"dimensions must be .* from 1, not True"),
    (EMBED, ("a",), {"dimensions": "64"}, r"dimensions must be .* from 1, not '64'"),
    (COMPLETE, ("a",), {"max_tokens": -1}, r"max_tokens must be .* from 1, not -1"),
    (
        CHAT,
        (HELLO,),
        {"max_completion_tokens": 0},
        r"max_completion_tokens must be a whole number from 1",
    ),
    (COMPLETE, ("a",), {"temperature": -1}, r"temperature must be a number from 0, "),
    (COMPLETE, ("a",), {"temperature": "0"}, r"temperature must be a number .*'0'"),
    (COMPLETE, ("a",), {"top_p": 2}, r"top_p must be a number from 0 to 1, not 2"),
    (COMPLETE, ([7, -1],), {}, r"prompt has the token id -1; ids begin at 0"),
    (COMPLETE, ([7, "a"],), {}, r"one text, not a list"),
    (COMPLETE, ("a",), {"max_tokens": 0}, r"from 1, not 0; with echo=True, 0 scores"),
    (COMPLETE, ("a",), {"max_token": 5}, r'no parameter "max_token"; .* "max_tokens"'),
    (COMPLETE, ("a",), {"temprature": 0}, r'did you mean "temperature"\? If .* pass'),
    (CHAT, (HELLO,), {"max_new_tokens": 5}, r'"max_new_tokens": say max_tokens'),
    (COMPLETE, ("a",), {"timeout": 60}, r"say deadline=SECONDS"),
    (
        COMPLETE,
        ("a",),
        {"priority": 9},
        r"complete\.apply_async\(\(prompt,\), priority",
    ),
    (EMBED, ("a",), {"queue": "q"}, r"embed\.apply_async\(\(input,\), queue=\.\.\.\)"),
    (COMPLETE, ("a",), {"messages": HELLO}, r"chat\(\) takes messages"),
    (COMPLETE, ("a",), {"zzz": 1}, r"pass it as extra_body=\{'zzz': \.\.\.\}"),
    (EMBED, ("a",), {"temperature": 0}, r'embed\(\) knows no parameter "temperature"'),
    (COMPLETE, ("a",), {"extra_body": [1]}, r"extra_body must be an object like"),
    (COMPLETE, ("a",), {"extra_body": {"model": "m"}}, r"must not hold model"),
    (COMPLETE, ("a",), {"extra_body": {"stream": True}}, r"must not hold stream"),
    (COMPLETE, ("a",), {"extra_body": {"n": 0}}, r"n must be a whole number from 1"),
    (CHAT, (), {}, r"chat\(\) needs its messages"),
    (CHAT, ([],), {}, r"messages must be a list like .*, not an empty list"),
    (CHAT, ("hi",), {}, r"messages must be a list like .*, not str"),
    (CHAT, (["hi"],), {}, r"messages\[0\] must be an object .*, not str"),
    (CHAT, ([{"content": "hi"}],), {}, r"messages\[0\] has no role; say \"system\""),
    (CHAT, ([*HELLO, {"role": "user"}],), {}, r"messages\[1\] has no content"),
    (EMBED, (3,), {}, r"input must be a text or a list of texts, not int"),
    (EMBED, ([],), {}, r"input is an empty list; there is nothing to embed"),
    (EMBED, ("",), {}, r"input\[0\] is empty; leave it out"),
    (EMBED, (["a", ""],), {}, r"input\[1\] is empty; leave it out"),
    (EMBED, (["a", 1],), {}, r"input\[1\] must be text, not int"),
    (
        EMBED,
        (["a", "", "b", None],),
        {},
        r"input\[1\] is empty.*; input\[3\] must be text",
    ),
    (EMBED, ([[1], "a"],), {}, r"input\[1\] must be a list of token ids"),
    (CHAT, ([{"role": "user", "content": 3}],), {}, r"text or a list of parts .* int"),
    (CHAT, ([{"role": "user", "content": None}],), {}, r"messages\[0\] has no content"),
    (
        CHAT,
        ([{"role": "user", "content": [1]}],),
        {},
        r"'\]\[0\] must be a part",
    ),
]


@pytest.mark.parametrize(("task", "args", "kwargs", "says"), BAD_REQUESTS)
def test_a_bad_request_names_the_thing_the_fact_and_the_remedy(
    task: str, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
):
    with pytest.raises(RequestError, match=says):
        build(task, args, kwargs)


@pytest.mark.parametrize(
    ("task", "subject", "length", "words"),
    [
        (COMPLETE, [1] * 70_000, 512, "prompt has 70,000 token ids.* than 65,536"),
        (EMBED, [[1], [2] * 70_000], 512, "input has 70,001 token ids.* than 65,536"),
        (EMBED, [[1] * 60_000] * 70, 512, "nor a request more than 4,000,000"),
        (COMPLETE, [1] * 4_000_001, None, "context length is unknown"),
    ],
)
def test_more_token_ids_than_anybody_looks_at_are_refused(
    task: str, subject: Any, length: int | None, words: str
):
    with pytest.raises(RequestError, match=words):
        check_context(build(task, (subject,), {}), length)


@pytest.mark.parametrize("odd", [True, 2**64, -(2**63) - 1, "a", None, 1.5])
@pytest.mark.parametrize("place", [0, 65_536, 99_999])
def test_long_lists_are_taken_as_short_ones(odd: Any, place: int):
    values: list[Any] = list(range(100_000))
    assert plain(tuple(values), "prompt") == values
    values[place] = odd
    if isinstance(odd, int) and odd is not True:
        with pytest.raises(RequestError, match=rf"prompt\[{place}\] is .* 64 bits"):
            plain(values, "prompt")
    else:
        found = plain(values, "prompt")
        assert (found, type(found[place])) == (values, type(odd))
        with pytest.raises(RequestError, match="prompt must be one text"):
            build(COMPLETE, (values,), {})


def test_token_ids_that_an_engine_may_cut_are_not_refused():
    for task, subject, length in (
        (COMPLETE, [1] * 65_536, 512),
        (EMBED, [[1] * 65_536] * 60, 512),
        (COMPLETE, [1] * 100_000, 32_768),
        (COMPLETE, [1] * 100_000, None),
        (CHAT, [{"role": "user", "content": "hi"}], 512),
    ):
        check_context(build(task, (subject,), {}), length)


def test_sampling_parameters_go_to_the_engine_and_the_others_do_not():
    request = build(
        COMPLETE,
        ("a",),
        {"model": "m", "raw": True, "deadline": 5, "temperature": 0.5, "stop": ["."]},
    )
    assert request.body == {"prompt": "a", "temperature": 0.5, "stop": ["."]}
    assert (request.model, request.raw, request.deadline) == ("m", True, 5)
    assert request.kind is Kind.COMPLETION
    assert build(EMBED, ("a",), {}).kind is Kind.EMBEDDING


def test_the_callers_parameters_win_over_the_models_own():
    request = build(COMPLETE, ("a",), {"temperature": 0})
    whole = with_defaults(request, {"temperature": 1, "max_tokens": 8}, 256)
    assert whole.body == {"prompt": "a", "temperature": 0, "max_tokens": 8}


def test_only_complete_gets_the_fleets_number_of_tokens():
    assert with_defaults(build(COMPLETE, ("a",), {}), {}, 256).body["max_tokens"] == 256
    scored = build(COMPLETE, ("a",), {"max_tokens": 0, "echo": True})
    assert with_defaults(scored, {}, 256).body["max_tokens"] == 0
    assert "max_tokens" not in with_defaults(build(COMPLETE, ("a",), {}), {}, 0).body
    assert "max_tokens" not in with_defaults(build(CHAT, (HELLO,), {}), {}, 256).body


def test_answers_are_counted_by_what_is_sent():
    request = build(COMPLETE, ("a",), {})
    assert not request.many
    assert with_defaults(request, {"n": 4}, 0).many
    assert build(COMPLETE, ("a",), {"extra_body": {"n": 2}}).many


def test_extra_body_goes_to_the_engine_unlooked_at():
    request = build(COMPLETE, ("a",), {"extra_body": {"new_knob": 5}, "seed": 1})
    assert request.body == {"prompt": "a", "seed": 1, "new_knob": 5}


def test_a_prompt_may_be_token_ids():
    request = build(COMPLETE, ([5, 700, 3],), {})
    assert (request.body["prompt"], request.highest_token) == ([5, 700, 3], 700)
    assert not request.many
    one, two = build(EMBED, ([5, 9],), {}), build(EMBED, ([[5], [9, 2]],), {})
    assert (one.many, one.highest_token) == (False, 9)
    assert (two.many, two.highest_token) == (True, 9)
    assert build(EMBED, (["a", "b"],), {}).highest_token is None


@pytest.mark.parametrize(
    "instead", [{"tool_calls": [{"id": "1"}]}, {"refusal": "no"}], ids=str
)
@pytest.mark.parametrize("content", [{}, {"content": None}], ids=str)
def test_a_message_may_have_something_else_than_content(instead, content):
    build(CHAT, ([*HELLO, {"role": "assistant", **content, **instead}],), {})


def test_a_parameter_of_none_is_one_that_was_not_given():
    nothing = {"n": None, "max_tokens": None, "temperature": None, "top_p": None}
    assert not build(COMPLETE, ("a",), nothing).many


def test_the_subject_may_be_named():
    assert build(CHAT, (), {"messages": HELLO}) == build(CHAT, (HELLO,), {})


def test_more_tokens_than_the_context_has_are_refused():
    request = with_model(build(COMPLETE, ("a",), {"max_tokens": 4096}), "m")
    text = r'maximum context length is 4096 tokens \("m"\); ask for fewer'
    with pytest.raises(RequestError, match=text):
        check_context(request, 4096)
    check_context(request, 4097)
    check_context(request, None)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"temperature": NAN}, r"temperature is not a number \(NaN\).*pandas"),
        ({"seed": NAN}, r"seed is not a number"),
        ({"logit_bias": {"7": -INF}}, r"logit_bias\['7'\] is infinite"),
        (
            {"extra_body": {"a": [1, {"b": NAN}]}},
            r"extra_body\['a'\]\[1\]\['b'\] is not",
        ),
        ({"stop": {1, 2}}, r"stop is of type set, which cannot be sent as JSON"),
        ({"seed": 2**70}, r"seed is .*, beyond 64 bits"),
        ({"stop": ["a", "\ud800b"]}, r"stop\[1\] has half of a surrogate pair"),
        ({"logit_bias": {1.5: 1}}, r"logit_bias has the key 1\.5; keys must be text"),
        ({"user": b"me"}, r"user is of type bytes"),
    ],
)
def test_what_json_cannot_carry_is_refused_with_its_place(kwargs, says: str):
    with pytest.raises(RequestError, match=says):
        plain_arguments(COMPLETE, ("a",), kwargs)


def test_a_cell_that_pandas_left_empty_is_no_content():
    with pytest.raises(
        RequestError, match=r"messages\[0\]\['content'\] is not a number"
    ):
        plain_arguments(CHAT, ([{"role": "user", "content": NAN}],), {})


class FromNumpy:
    """Stands for NumPy's numbers and arrays, which we do not depend on."""

    __module__ = "numpy"

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value


def test_numbers_and_arrays_of_numpy_are_plain_ones():
    args, kwargs = plain_arguments(
        EMBED, (FromNumpy(["a", "b"]),), {"dimensions": FromNumpy(64)}
    )
    assert (args, kwargs) == ((["a", "b"],), {"dimensions": 64})


class City(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("messages", "form", "remedy"),
    [
        (HELLO, City, r'map_prompts\(\) takes .*"schema": City\.model_json_schema\(\)'),
        ([City(name="Rome")], None, r"messages\[0\] is of type City, .*model_dump\(\)"),
    ],
)
def test_what_is_pydantics_is_refused_with_its_way_to_json(
    messages: Any, form: Any, remedy: str
):
    with pytest.raises(RequestError, match=remedy):
        plain_arguments(CHAT, (messages,), {"response_format": form})
