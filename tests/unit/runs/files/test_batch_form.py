"""Lines of OpenAI's Batch API."""

import json

from modelserver.runs.files.batch_form import answer_line
from modelserver.runs.rows import Answered


def test_the_metadata_of_an_answer_is_texts():
    value = {"choices": [], "engine": "m-0", "metadata": {"a": "b", "c": [1]}}
    line = json.loads(answer_line("r", "a", Answered(0, value)))
    assert line["response"]["engine"] == "m-0"
    assert line["response"]["body"] == {
        "choices": [],
        "metadata": {"a": "b", "c": "[1]"},
    }
