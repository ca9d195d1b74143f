"""The fault-injecting engine as real processes: each fault does what it says."""

import asyncio
import base64
import http.client
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest

from tests.engine.openai_api import answer_text, embedding
from tests.engine.process import ROOT, EngineProcess, Reply
from tests.support.processes import eventually

#: How long a test waits to see that no answer comes.
SILENCE_SECONDS = 0.3


@pytest.fixture(scope="module")
def shared() -> Iterator[EngineProcess]:
    with EngineProcess("--latency", "0.01", "--context-length", "100") as engine:
        yield engine


@pytest.fixture
def engine(shared: EngineProcess) -> Iterator[EngineProcess]:
    yield shared
    shared.request("DELETE", "/fault")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def silent(engine: EngineProcess, path: str = "/health") -> bool:
    try:
        engine.request("GET", path, within=SILENCE_SECONDS)
    except TimeoutError:
        return True
    return False


def metric(engine: EngineProcess, name: str) -> float:
    lines = engine.request("GET", "/metrics").body.decode().splitlines()
    return next(float(x.split()[-1]) for x in lines if x.startswith(f"sglang:{name}{{"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_completion_echoes_its_prompt_and_counts_its_tokens(
    engine: EngineProcess,
) -> None:
    body = engine.complete("one two three", n=2, max_tokens=4).json()
    assert [c["text"] for c in body["choices"]] == [answer_text("one two three")] * 2
    assert [c["finish_reason"] for c in body["choices"]] == ["length"] * 2
    usage = {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}
    assert body["usage"] == usage


def test_a_chat_answers_its_messages(engine: EngineProcess) -> None:
    parts = [{"type": "text", "text": "and this"}]
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": parts},
    ]
    reply = engine.request("POST", "/v1/chat/completions", {"messages": messages})
    [choice] = reply.json()["choices"]
    assert choice["message"]["content"] == answer_text("be brief\nand this")


def test_embeddings_come_as_floats_and_as_base64(engine: EngineProcess) -> None:
    ask: dict[str, Any] = {"input": ["a b", "c"]}
    reply = engine.request("POST", "/v1/embeddings", ask).json()
    assert [d["embedding"] for d in reply["data"]] == [embedding("a b"), embedding("c")]
    assert reply["usage"]["prompt_tokens"] == 3
    ask = {"input": "c", "encoding_format": "base64"}
    [item] = engine.request("POST", "/v1/embeddings", ask).json()["data"]
    raw = base64.b64decode(item["embedding"])
    assert list(struct.unpack("<8f", raw)) == embedding("c")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ""}),
        ("/v1/completions", {"prompt": 5}),
        ("/v1/completions", {"prompt": "x", "temperature": -1}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0}),
        ("/v1/completions", {"prompt": "x " * 90, "max_tokens": 11}),
        ("/v1/completions", ["x"]),
        ("/v1/chat/completions", {"messages": [{"content": "hello"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": "x", "encoding_format": "hex"}),
    ],
)
def test_a_bad_request_gets_400(engine: EngineProcess, path: str, body: object) -> None:
    reply = engine.request("POST", path, body)
    assert reply.status == 400
    assert reply.json()["object"] == "error"
    assert reply.json()["code"] == 400
    assert reply.json()["message"]


def test_a_healthy_engine_says_so_and_names_its_model(engine: EngineProcess) -> None:
    for path in ("/health", "/health_generate", "/ready"):
        assert engine.request("GET", path).status == 200
    [model] = engine.request("GET", "/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("test-model", 100)
    assert engine.request("GET", "/nowhere").status == 404


def test_the_stats_tell_what_ran_twice(engine: EngineProcess) -> None:
    before = engine.stats()
    for prompt in ("once", "twice", "twice"):
        engine.complete(prompt)
    stats = engine.stats()
    assert (stats["executed"]["once"], stats["executed"]["twice"]) == (1, 2)
    assert stats["received"] - before["received"] == 3
    assert stats["completed"] - before["completed"] == 3


@pytest.mark.parametrize("fault", [{"sloww": 2}, {"rate": 2}, {"status": "500"}, []])
def test_a_fault_that_does_not_exist_is_refused(
    engine: EngineProcess, fault: object
) -> None:
    assert engine.request("POST", "/fault", fault).status == 400
    assert engine.request("GET", "/fault").json() == {}


def test_slow_multiplies_the_time(engine: EngineProcess) -> None:
    engine.fault(slow=30)
    started = time.monotonic()
    assert engine.complete("x").status == 200
    assert 0.3 <= time.monotonic() - started < 5


def test_status_strikes_the_given_share_of_requests(engine: EngineProcess) -> None:
    engine.fault(status=503, rate=0.5, retry_after=7)
    replies = [engine.complete("x") for _ in range(40)]
    refused = [reply for reply in replies if reply.status == 503]
    assert 8 <= len(refused) <= 32
    assert {reply.headers["retry-after"] for reply in refused} == {"7"}
    assert {reply.status for reply in replies} == {200, 503}
    assert engine.request("GET", "/health").status == 200


def test_half_json_cannot_be_read(engine: EngineProcess) -> None:
    engine.fault(half_json=True)
    reply = engine.complete("x")
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json()


def test_wrong_json_is_no_answer(engine: EngineProcess) -> None:
    engine.fault(wrong_json=True)
    assert "choices" not in engine.complete("x").json()


def test_no_choices_and_empty_text(engine: EngineProcess) -> None:
    engine.fault(no_choices=True)
    assert engine.complete("x").json()["choices"] == []
    engine.fault(empty_text=True)
    assert engine.complete("x").json()["choices"][0]["text"] == ""
    [item] = engine.request("POST", "/v1/embeddings", {"input": "x"}).json()["data"]
    assert item["embedding"] == []


def test_reset_closes_the_connection_without_an_answer(engine: EngineProcess) -> None:
    engine.fault(reset=True)
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        engine.complete("x")


def test_drip_sends_a_byte_a_second(engine: EngineProcess) -> None:
    engine.fault(drip=True)
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=30)
    started = time.monotonic()
    connection.request("POST", "/v1/completions", b'{"prompt": "x"}')
    answer = connection.getresponse()
    assert answer.read(2) == b'{"'
    assert 0.5 < time.monotonic() - started < 10
    connection.close()


def test_never_ready_refuses_health_and_requests(engine: EngineProcess) -> None:
    engine.fault(never_ready=True)
    assert engine.request("GET", "/health").status == 503
    assert engine.complete("x").status == 503


def test_ready_after_a_while() -> None:
    with EngineProcess("--ready-after", "3600") as engine:
        assert engine.request("GET", "/health").status == 503
        assert engine.complete("x").status == 503
        engine.fault(ready_after=0.1)
        eventually(lambda: engine.request("GET", "/health").status == 200)
        assert engine.complete("x").status == 200


def test_a_hang_holds_requests_and_health_until_it_is_cleared(
    engine: EngineProcess, pool: ThreadPoolExecutor
) -> None:
    engine.fault(hang=True)
    held: Future[Reply] = pool.submit(engine.complete, "held")
    eventually(lambda: len(engine.stats()["in_flight"]) == 1)
    assert silent(engine)
    assert silent(engine, "/v1/loads")
    assert not held.done()
    engine.fault(hang=True, lie_health=True)
    assert engine.request("GET", "/health").status == 200
    assert not held.done()
    engine.request("DELETE", "/fault")
    assert held.result().status == 200


def test_a_hang_with_a_rate_holds_some_requests_only(engine: EngineProcess) -> None:
    before = engine.stats()

    def settled() -> bool:
        """Whether all have come, and none is being worked on."""
        stats = engine.stats()
        return stats["received"] - before["received"] == 40 and not stats["in_flight"]

    async def answered() -> int:
        async with aiohttp.ClientSession(engine.url) as session:

            async def one() -> int:
                async with session.post("/v1/completions", data=b'{"prompt":"x"}') as r:
                    return r.status

            sent = [asyncio.create_task(one()) for _ in range(40)]
            await asyncio.to_thread(eventually, settled)
            count: int = engine.stats()["completed"] - before["completed"]
            for each in sent:
                each.cancel()
            await asyncio.gather(*sent, return_exceptions=True)
            return count

    engine.fault(hang=True, rate=0.5)
    assert 8 <= asyncio.run(answered()) <= 32
    assert engine.request("GET", "/health").status == 200


def test_a_hang_stops_the_tokens_of_the_batch(pool: ThreadPoolExecutor) -> None:
    with EngineProcess("--step-seconds", "0.005") as engine:
        running = pool.submit(engine.complete, "a b c", max_tokens=100)
        eventually(lambda: metric(engine, "generation_tokens_total") > 5)
        engine.fault(hang=True)
        tokens = metric(engine, "generation_tokens_total")
        assert silent(engine)
        assert metric(engine, "generation_tokens_total") == tokens
        engine.request("DELETE", "/fault")
        assert running.result().json()["usage"]["completion_tokens"] == 100


def test_the_batch_takes_its_time_and_lets_the_others_queue(
    pool: ThreadPoolExecutor,
) -> None:
    with EngineProcess("--step-seconds", "0.02", "--max-running", "2") as engine:
        # Slow while they are looked at.
        engine.fault(slow=50)
        runs = [pool.submit(engine.complete, "a", max_tokens=20) for _ in range(3)]
        eventually(lambda: metric(engine, "num_running_reqs") == 2)
        eventually(lambda: metric(engine, "num_queue_reqs") == 1)
        eventually(lambda: 0 < metric(engine, "token_usage") < 1)
        [rank] = engine.request("GET", "/v1/loads").json()["loads"]
        assert (rank["num_running_reqs"], rank["num_waiting_reqs"]) == (2, 1)
        engine.fault()
        assert [run.result().status for run in runs] == [200] * 3
        assert metric(engine, "prompt_tokens_total") == 3
        started = time.monotonic()
        runs = [pool.submit(engine.complete, "a", max_tokens=20) for _ in range(3)]
        assert [run.result().status for run in runs] == [200] * 3
        assert 0.75 < time.monotonic() - started < 5


def test_a_client_that_goes_away_ends_its_generation() -> None:
    with EngineProcess("--step-seconds", "0.02") as engine:
        connection = http.client.HTTPConnection("127.0.0.1", engine.port)
        asked = json.dumps({"prompt": "x", "max_tokens": 30_000})
        connection.request("POST", "/v1/completions", asked)
        eventually(lambda: metric(engine, "num_running_reqs") == 1)
        connection.close()
        eventually(lambda: metric(engine, "num_running_reqs") == 0)
        stats = eventually(
            lambda: found if (found := engine.stats())["aborted"] else None
        )
        assert (stats["aborted"], stats["in_flight"]) == (1, [])
        assert stats["executed"] == {}


def test_abort_request_ends_one_generation_or_all(pool: ThreadPoolExecutor) -> None:
    with EngineProcess("--latency", "20") as engine:
        runs = [pool.submit(engine.complete, "x", rid=f"r{i}") for i in range(3)]
        eventually(lambda: len(engine.stats()["in_flight"]) == 3)
        engine.request("POST", "/abort_request", {"rid": "r1"})
        [choice] = runs[1].result().json()["choices"]
        assert (choice["finish_reason"], choice["text"]) == ("abort", "")
        assert sorted(engine.stats()["in_flight"]) == ["r0", "r2"]
        engine.request("POST", "/abort_request", {"abort_all": True})
        assert [run.result().status for run in runs] == [200] * 3
        assert engine.stats()["aborted"] == 3


def test_die_ends_the_process_after_so_many_more_requests() -> None:
    with EngineProcess("--die", "--after", "2") as engine:
        assert [engine.complete("x").status for _ in range(2)] == [200, 200]
        with pytest.raises((OSError, http.client.HTTPException)):
            engine.complete("x")
        eventually(lambda: engine.exit_code == 1)


def test_sigterm_ends_the_engine_at_once_even_while_it_hangs(
    pool: ThreadPoolExecutor,
) -> None:
    with EngineProcess("--hang") as engine:
        held = pool.submit(engine.complete, "x")
        eventually(lambda: len(engine.stats()["in_flight"]) == 1)
        engine.signal(signal.SIGTERM)
        eventually(lambda: engine.exit_code == 0)
        assert isinstance(held.exception(), (OSError, http.client.HTTPException))


def test_sigterm_drain_finishes_what_is_in_flight(pool: ThreadPoolExecutor) -> None:
    with EngineProcess("--sigterm", "drain", "--hang") as engine:
        running = pool.submit(engine.complete, "x")
        eventually(lambda: len(engine.stats()["in_flight"]) == 1)
        engine.signal(signal.SIGTERM)
        eventually(lambda: engine.request("GET", "/ready").status == 503)
        engine.fault()
        assert running.result().status == 200
        eventually(lambda: engine.exit_code == 0)


def test_sigterm_ignore_stays_and_a_child_stays_behind_a_kill() -> None:
    with EngineProcess("--sigterm", "ignore", "--spawn-child") as engine:
        child = engine.stats()["child_pid"]
        try:
            engine.signal(signal.SIGTERM)
            os.kill(child, signal.SIGTERM)
            assert engine.complete("x").status == 200
            engine.kill()
            assert alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_server_runs_by_its_path_from_anywhere() -> None:
    script = ROOT / "tests" / "engine" / "server.py"
    done = subprocess.run(
        [sys.executable, str(script), "--rate", "3"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "bad fault: rate must lie in 0..1, not 3.0"


def test_an_engine_may_keep_its_metrics_to_itself():
    with EngineProcess("--no-metrics") as engine:
        assert engine.request("GET", "/metrics").status == 404
        assert engine.complete("hello").status == 200
