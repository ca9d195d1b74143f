"""Responses that are kept, and conversations that go on from them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelserver.gateway.bodies import join, read_body
from modelserver.gateway.faults import Fault, Refused
from modelserver.gateway.responses import ResponseFolder, ResponseRecord, items_of
from modelserver.operations.kept_responses import KEPT_SECONDS, check_kept


def message(name: str, text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text}]
    return {"id": name, "type": "message", "role": "assistant", "content": content}


def record(name: str, asked: Any, *said: Mapping[str, Any], previous: str = "") -> Any:
    body = {"id": name, "output": list(said)}
    return ResponseRecord(body, items_of(asked), previous)


YO, AYE = message("msg_1", "yo"), message("msg_2", "aye")
CALL = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "ok"}
FIRST = record("resp_1", "hi", YO)
SECOND = record("resp_2", [RESULT], AYE, CALL, previous="resp_1")


@pytest.fixture
def folder(tmp_path: Path) -> ResponseFolder:
    """Two responses of ana's, of which the second goes on from the first."""
    folder = ResponseFolder(tmp_path / "files" / "responses")
    for each in (FIRST, SECOND):
        folder.keep(each, "ana")
    return folder


def fault(folder: ResponseFolder, owner: str = "ana", **body: Any) -> Fault:
    """How a body is refused."""
    with pytest.raises(Refused) as refused:
        folder.with_past({"input": "more", **body}, owner)
    return refused.value.fault


def test_a_response_goes_on_from_all_that_was_said_before(folder: ResponseFolder):
    body = {"model": "m", "input": "more", "previous_response_id": "resp_2"}
    told = folder.with_past(body, "ana")
    expected = [*items_of("hi"), YO, RESULT, AYE, CALL, *items_of("more")]
    assert told == {**body, "input": expected}


def test_a_response_that_goes_on_from_itself_is_told(folder: ResponseFolder):
    folder.keep(record("resp_1", "hi", YO, previous="resp_2"), "ana")
    found = fault(folder, previous_response_id="resp_2")
    assert found.code == "previous_response_not_found"


def test_a_short_input_does_not_stand_for_more_than_a_body_may_be(
    folder: ResponseFolder,
):
    folder.keep(record("resp_3", "hi", message("msg_3", "x" * 1_000_000)), "ana")
    found = fault(folder, input=[{"id": "msg_3"}] * 10_000_000)
    assert (found.status, found.param) == (413, "input")


def test_an_item_that_is_named_is_put_in_its_place(folder: ResponseFolder):
    named = [{"type": "item_reference", "id": "fc_1"}, {"id": "msg_1"}, RESULT]
    assert folder.with_past({"input": named}, "ana") == {"input": [CALL, YO, RESULT]}
    folder.keep(record("resp_3", named, message("msg_3", "so")), "ana")
    body = {"input": [RESULT], "previous_response_id": "resp_3"}
    assert folder.with_past(body, "ana")["input"][:3] == [CALL, YO, RESULT]


@pytest.mark.parametrize("given", ["hi", [RESULT], [5], {}, None, [{"id": 1, "a": 2}]])
def test_what_names_nothing_stays_as_it_is(folder: ResponseFolder, given: Any):
    body = {"input": given, "previous_response_id": None}
    assert folder.with_past(body, "ana") is body


@pytest.mark.parametrize("name", ["resp_9", "../resp_1", "msg_1", "a" * 300, 5, ["a"]])
def test_a_response_that_is_not_there_is_told(folder: ResponseFolder, name: Any):
    found = fault(folder, previous_response_id=name)
    assert (found.status, found.param) == (400, "previous_response_id")
    assert found.code == "previous_response_not_found"


@pytest.mark.parametrize("name", ["msg_9", "../msg_1", "resp_1", 5, None])
def test_an_item_that_is_not_there_is_told(folder: ResponseFolder, name: Any):
    found = fault(folder, input=[{"type": "item_reference", "id": name}])
    assert (found.status, found.param) == (404, "input")


def test_nobody_sees_another_keys(folder: ResponseFolder):
    assert folder.find("resp_1", "ana") == FIRST
    assert folder.find("resp_1", "") is None
    assert fault(folder, "bob", previous_response_id="resp_1").status == 400
    assert fault(folder, "bob", input=[{"id": "msg_1"}]).status == 404


def test_no_other_user_of_the_host_reads_responses(
    folder: ResponseFolder, tmp_path: Path
):
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_a_response_is_removed_with_its_items(folder: ResponseFolder, tmp_path: Path):
    folder.remove(FIRST, "ana")
    assert folder.find("resp_1", "ana") is None
    assert fault(folder, input=[{"id": "msg_1"}]).status == 404
    assert fault(folder, previous_response_id="resp_2").status == 400
    folder.remove(SECOND, "ana")
    assert not list(tmp_path.glob("*/*/*/*"))


def test_what_is_used_stays(folder: ResponseFolder, tmp_path: Path):
    for path in tmp_path.glob("*/*/*/*"):
        os.utime(path, (0, 0))
    folder.with_past({"input": [{"id": "msg_1"}]}, "ana")
    [used] = tmp_path.glob("*/*/*/resp_1.json")
    last_use = used.stat().st_mtime
    folder.remove_old(last_use + KEPT_SECONDS)
    assert {path.stem for path in tmp_path.glob("*/*/*/*")} == {"resp_1", "msg_1"}
    folder.remove_old(last_use + KEPT_SECONDS + 1)
    assert not list(tmp_path.glob("*/*/*/*"))


def test_of_too_many_the_latest_used_stay(tmp_path: Path):
    folder = ResponseFolder(tmp_path / "responses")
    text, now = "x" * 40_000, 1e6
    for number in range(20):
        each = record(f"resp_{number}", text, message(f"msg_{number}", "yo"))
        size = folder.keep(each, "ana" if number % 2 else "bob")
        for path in tmp_path.glob(f"*/*/*_{number}.json"):
            os.utime(path, (now + 60 * number,) * 2)
    assert folder.remove_old(now) > 20 * size
    left = folder.remove_old(now, 10 * 1.1 * size)
    assert left <= 10 * size
    names = {path.stem for path in tmp_path.glob("*/*/*")}
    stayed = len(names) // 2
    assert 8 <= stayed <= 9
    expected = range(20 - stayed, 20)
    assert names == {f"{kind}_{n}" for kind in ("resp", "msg") for n in expected}
    assert check_kept(tmp_path / "responses", 20 * size).remedy == ""
    assert check_kept(tmp_path / "responses", 9 * size).is_note


def test_an_answer_says_whether_it_is_kept_and_what_it_goes_on_from():
    asked = {"model": "m", "input": "hi", "previous_response_id": "resp_1"}
    engine = {"id": "r", "store": False, "previous_response_id": None, "output": []}
    found = read_body("/v1/responses", asked)
    told = join(found, [engine])
    assert (told["store"], told["previous_response_id"]) == (True, "resp_1")
    sent = found.calls[0].arguments["extra_body"]
    assert sent == {"store": False}
    private = read_body("/v1/responses", {"model": "m", "input": "hi", "store": False})
    assert join(private, [engine])["store"] is False


def test_details_of_the_tokens_used_are_numbers():
    usage = {"total_tokens": 3, "details": {"cached_tokens": 1, "by_turn": []}}
    asked = read_body("/v1/responses", {"model": "m", "input": "hi"})
    told = join(asked, [{"id": "r", "usage": usage, "output": []}])
    assert told["usage"] == {"total_tokens": 3, "details": {"cached_tokens": 1}}


def test_what_an_assistant_said_has_a_type():
    content = [{"type": "output_text", "text": "yo"}]
    given = [{"role": "assistant", "content": content}, RESULT, {"role": "user"}, 5]
    [call] = read_body("/v1/responses", {"model": "m", "input": given}).calls
    assert call.payload == [{"type": "message", **given[0]}, *given[1:]]
