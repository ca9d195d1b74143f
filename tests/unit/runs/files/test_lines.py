"""What a line of OpenAI's Batch API must be."""

import json
from typing import Any

import pytest

from modelserver.runs.files.lines import LineBounds, LineReader
from modelserver.runs.files.problems import LineError
from modelserver.runs.prompts import Template
from tests.support.batch_files import batch_line
from tests.support.run_lanes import MODELS

GOOD = batch_line("a", "hi", max_tokens=4)


def read(line: Any, **options: Any) -> Any:
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    return LineReader(MODELS, **options).read(0, raw)


def changed(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | values).items() if value != "-"}


def body(**values: Any) -> dict[str, Any]:
    return changed(body=GOOD["body"] | values)


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    return [nested(depth - 1)] if depth else []


#: A line that has two names.
TWICE = b'{"custom_id": "b",' + json.dumps(GOOD).encode()[1:]


def test_a_line_is_a_row():
    found = read(GOOD)
    assert found.custom_id == "a"
    assert found.row.task == "modelserver.chat"
    assert found.row.payload == GOOD["body"]["messages"]
    wanted = {"model": "writer", "max_tokens": 4, "raw": True}
    assert found.row.parameters == wanted
    assert json.loads(found.raw) == GOOD


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b"{broken", "invalid_json", "character 1"),
        (b"[1]", "invalid_json", "is no object"),
        (b"[", "invalid_json", "begins a JSON array"),
        (b'[{"custom_id": "a"},', "invalid_json", "begins a JSON array"),
        (b"{", "invalid_json", "begins an object of several lines"),
        (b'{"a": "\0"}', "invalid_json", "NUL byte at byte 7"),
        (b'{"a": NaN}', "invalid_json", "character 6"),
        (b'{"a": "\\ud800"}', "invalid_json", "surrogate"),
        (b'{"a": "\xff"}', "invalid_json", "UTF-8 at byte 7"),
        (
            TWICE.replace(b"{,", b'{"custom_id": "b",'),
            "invalid_json",
            "custom_id twice",
        ),
        (body(extra_body=[1], own=2), "invalid_request", "extra_body must be an"),
        (body(tools=nested(250)), "invalid_json", "more than 200 lists"),
        (body(messages=nested(900)), "invalid_json", "more than 200 lists"),
        (changed(custom_id="-"), "invalid_custom_id", "no custom_id"),
        (changed(custom_id=7), "invalid_custom_id", "the custom_id 7"),
        (b'{"text": "a"}', "invalid_custom_id", r'--prompt "\.\.\. \{text\} \.\.\."'),
        (changed(method="GET"), "invalid_method", "must be POST"),
        (changed(url="/v1/responses"), "invalid_url", "/v1/chat/completions"),
        (changed(url="-"), "invalid_url", "no url"),
        (changed(url=["x"]), "invalid_url", "the url \\['x'\\]"),
        (changed(body="-"), "invalid_body", "no body"),
        (changed(body={"model": "writer"}), "invalid_body", "no messages"),
        (body(model="wirter"), "invalid_model", 'did you mean "writer"'),
        (body(model="vectors"), "invalid_model", "is for embedding"),
        (body(messages=[]), "invalid_request", "messages must be"),
        (body(messages=[{"role": "user"}]), "invalid_request", "no content"),
        (body(stream=True), "invalid_request", "stream"),
        (body(max_tokens=0), "invalid_request", "max_tokens"),
        (body(max_tokens=99_999), "invalid_request", "leaves no room"),
    ],
)
def test_a_bad_line_is_named(line: Any, code: str, words: str):
    with pytest.raises(LineError, match=words) as caught:
        read(line)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (changed(url="/v1/completions"), "invalid_url", "batch is for /v1/chat"),
        (body(lora_path="sql"), "model_not_allowed", "an adapter by lora_path"),
        (body(adapter_id="sql"), "model_not_allowed", "an adapter by adapter_id"),
        (body(extra_body={"lora": [1]}), "model_not_allowed", "an adapter by lora,"),
    ],
)
def test_a_line_beyond_the_bounds_of_its_batch_is_named(
    line: Any, code: str, words: str
):
    bounds = LineBounds("/v1/chat/completions", ("writer",))
    with pytest.raises(LineError, match=words) as caught:
        read(line, bounds=bounds)
    assert caught.value.code == code
    with pytest.raises(LineError, match="asks for writer, and its key may for other"):
        read(GOOD, bounds=LineBounds(models=("other",)))
    assert read(GOOD, bounds=bounds).row == read(GOOD).row
    assert read(body(lora_path="sql")).row.parameters["lora_path"] == "sql"


def test_the_prompt_of_a_line_may_be_a_list_of_one():
    for prompt in ("a", [1, 2]):
        line = changed(url="/v1/completions", body={"prompt": [prompt]})
        assert read(line, model="writer").row.payload == prompt
    two = changed(url="/v1/completions", body={"prompt": ["a", "b"]})
    with pytest.raises(LineError, match="prompt has 2 prompts; give each a line"):
        read(two, model="writer")


def test_a_line_that_is_read_beside_requests_holds_no_more_than_they_may():
    line = changed(url="/v1/completions", body={"prompt": [1] * 2_100_000})
    with pytest.raises(LineError, match="has more than 2,000,000 values") as caught:
        read(line, bounds=LineBounds(are_bounded=True))
    assert caught.value.code == "line_too_long"


def test_a_parameter_that_no_engine_is_known_to_take_goes_there():
    reader = LineReader(MODELS)
    row = reader.read(0, json.dumps(body(new_knob=5)).encode()).row
    assert row.parameters["extra_body"] == {"new_knob": 5}
    assert reader.unknown == {"new_knob"}


def test_rows_with_the_same_parameters_share_them():
    reader = LineReader(MODELS)
    first, second = (
        reader.read(n, json.dumps(batch_line(f"{n}", f"{n}")).encode()) for n in (0, 1)
    )
    assert first.row.parameters is second.row.parameters
    with pytest.raises(LineError, match="messages"):
        reader.read(2, json.dumps(body(messages=5, max_tokens=None)).encode())


def test_options_hold_for_all_rows():
    row = read(body(model="gpt-4o-mini"), model="writer", parameters={"seed": 1}).row
    assert row.parameters["model"] == "writer"
    assert row.parameters["seed"] == 1
    assert row.parameters["max_tokens"] == 4


def columns(row: dict[str, Any], **options: Any) -> Any:
    template = Template("Say {text}")
    return LineReader(MODELS, template=template, **options).read(3, row)


def test_a_row_of_a_table_is_a_line():
    found = columns({"text": "hi"}, model="writer", is_chat=True)
    assert found.custom_id == "row-3"
    assert read(found.raw).row.payload == found.row.payload
    assert found.row.payload == [{"role": "user", "content": "Say hi"}]
    assert columns({"text": "hi"}).row.task == "modelserver.complete"
    assert columns({"text": "hi"}, model="vectors").row.task == "modelserver.embed"
    assert columns({"text": "hi", "custom_id": "mine"}).custom_id == "mine"


def test_an_empty_cell_is_a_bad_line():
    with pytest.raises(LineError, match='column "text" is empty') as caught:
        columns({"text": None})
    assert caught.value.custom_id == "row-3"


def test_a_name_that_a_text_says_is_not_said_twice():
    said = body(messages=[{"role": "user", "content": '"body": "model", "model"'}])
    assert read(said).row.payload == said["body"]["messages"]
    own = body(tools=[{"model": 1, "body": 2}, {"model": 3}])
    assert read(own).custom_id == "a"
    raw = json.dumps(GOOD).replace('"model"', '"model": "x", "model"').encode()
    with pytest.raises(LineError, match="has model twice in its body"):
        read(raw)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("{a:d}", "x", r"column \"a\" cannot be written as \{a:d\}"),
        ("{a:>5}", [1], "unsupported format string"),
        ("{a}", b"x", "is binary"),
        ("{a}", None, "is empty"),
    ],
)
def test_a_cell_that_makes_no_text_is_named(place: str, value: Any, words: str):
    reader = LineReader(MODELS, "writer", template=Template(place))
    with pytest.raises(LineError, match=words):
        reader.read(0, {"a": value})


def test_a_row_of_a_table_has_the_name_that_its_cell_says():
    reader = LineReader(MODELS, "writer", template=Template("{a}"))
    names = {0: "0", None: "row-5", float("nan"): "row-5", "": "row-5", "x": "x"}
    for value, name in names.items():
        assert reader.read(5, {"custom_id": value, "a": 1}).custom_id == name
