"""curl: server-sent events line by line, whole answers, an upload."""

import json
import shutil
import subprocess
import time

from trials import BASE_URL, EXACT, HI, SUBJECT, TOKENS, WRITER, chat_text, run, trial


def curl(path: str, *options: str) -> str:
    """What curl prints."""
    done = subprocess.run(
        [str(shutil.which("curl")), "-sS", "-m", "120", f"{BASE_URL}/{path}", *options],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def sent(**body: object) -> tuple[str, ...]:
    data = json.dumps({"model": WRITER, **body})
    return "-H", "Content-Type: application/json", "-d", data


@trial
def whole() -> None:
    """a chat, its headers"""
    told = curl("chat/completions", "-i", *sent(messages=HI, **EXACT))
    head, _, body = told.replace("\r", "").partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "x-request-id: req_" in head.lower()
    assert json.loads(body)["choices"][0]["message"]["content"] == chat_text()
    plain = json.dumps({"model": WRITER, "messages": HI, **EXACT})
    assert json.loads(curl("chat/completions", "-d", plain))["choices"]


@trial
def events() -> None:
    """a chat's server-sent events"""
    usage = {"include_usage": True}
    told = curl(
        "chat/completions",
        *("-N", *sent(messages=HI, stream=True, stream_options=usage, **EXACT)),
    )
    *lines, last, end = told.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    chunks = [json.loads(each.removeprefix("data: ")) for each in lines]
    text = "".join(
        each["choices"][0]["delta"].get("content") or "" for each in chunks[:-1]
    )
    assert text == chat_text()
    assert chunks[-1]["usage"]["completion_tokens"] == TOKENS
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


@trial
def http_1_0() -> None:
    """events by HTTP/1.0, and a body that is announced"""
    told = curl("completions", "--http1.0", *sent(prompt="hi", stream=True, **EXACT))
    assert told.endswith("data: [DONE]\n\n")
    body = json.dumps({"model": WRITER, "prompt": "a " * 2000, **EXACT})
    headers = ("-H", "Content-Type: application/json", "-H", "Expect: 100-continue")
    assert json.loads(curl("completions", *headers, "-d", body))["choices"]
    chunked = ("-H", "Transfer-Encoding: chunked")
    assert json.loads(curl("completions", *chunked, *headers, "-d", body))["choices"]


@trial
def left() -> None:
    """a stream that is left: the engine ends it"""
    asked = sent(prompt="Once", stream=True, max_tokens=3500, ignore_eos=True)
    with subprocess.Popen(
        [str(shutil.which("curl")), "-sSN", f"{BASE_URL}/completions", *asked],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline().startswith(b"data: ")
        process.kill()
    ends = time.monotonic() + 10
    while running() and time.monotonic() < ends:
        time.sleep(0.1)
    assert not running()


def running() -> float:
    """The requests that the engine works on."""
    url = f"{SUBJECT['engine_url']}/metrics"
    key = f"Authorization: Bearer {SUBJECT['engine_key']}"
    done = subprocess.run(
        ["curl", "-sS", "-H", key, url], capture_output=True, text=True, check=True
    )
    names = ("sglang:num_running_reqs{", "vllm:num_requests_running{")
    lines = [each for each in done.stdout.splitlines() if each.startswith(names)]
    assert lines
    return sum(float(each.rpartition(" ")[2]) for each in lines)


run()
