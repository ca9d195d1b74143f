"""OpenAI's API under load, where everything behind it and itself is killed in turn."""

import asyncio
import json
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.machine import Processes
from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.values import EngineState
from tests.chaos.served import start_gateway
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually, free_port

#: Streams at once, their tokens, and how long an engine takes for one, in seconds.
STREAMS, TOKENS, ENGINE_SECONDS = 50, 40, 2.0
#: Whole answers a second beside them.
RATE = 5.0
#: Rows of the batch beside them.
ROWS = 400
#: What is killed, in this order.
VICTIMS = ("engine", "worker", "server", "gateway", "engine", "worker")
#: Seconds from one kill to the next.
PAUSE_SECONDS = 12.0
#: How long the batch and the last answers may take, in seconds.
LAST_SECONDS = 120.0
EXPECTED = "".join(f" {number}" for number in range(1, TOKENS + 1))


@dataclass(slots=True)
class Account:
    """What clients got."""

    finished: int = 0
    wrong: int = 0
    #: Streams of the gateway that was killed.
    broken: int = 0
    failed: int = 0
    answered: int = 0
    answers_wrong: int = 0
    #: Whole answers of the gateway that was killed.
    answers_broken: int = 0
    answers_failed: int = 0
    #: The longest that a stream was silent, in seconds.
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)


class Ground:
    """A rig with a gateway that is killed, and clients of it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        #: Set while the gateway is killed and started again.
        self.is_down = False
        self.kills = 0
        self.account = Account()
        self.worker = rig.worker()
        rig.worker()
        self._program("batches", "batches")
        self.gateway = self._start_gateway()

    def _program(self, name: str, *words: str) -> Processes:
        argv = [sys.executable, "-m", "modelserver.cli", *words]
        return self.rig.program(argv, f"{name}-{self.kills}")

    def _start_gateway(self) -> Processes:
        return start_gateway(self.rig, self.port, f"gateway-{self.kills}")[0]

    def kill(self, victim: str) -> None:
        """Kill one of the parts, and start it again."""
        self.kills += 1
        if victim == "gateway":
            self.is_down = True
            self.gateway.signal(signal.SIGKILL)
            self.gateway.process.wait(10)
            self.gateway = self._start_gateway()
            self.is_down = False
        elif victim == "worker":
            self.worker.signal(signal.SIGKILL)
            self.worker = self.rig.worker(wait=False)
        elif victim == "engine":
            number = len(self.rig.engines) - 1
            self.rig.engines[number].kill()
            self.rig.report(number, EngineState.BACKOFF)
            self.rig.add_engine("--latency", str(ENGINE_SECONDS))
        else:
            self.rig.server.stop()
            time.sleep(1.0)
            self.rig.server.start()

    # Clients.

    async def stream(self, session: aiohttp.ClientSession) -> None:
        """One stream from its first to its last part."""
        account, kills_before = self.account, self.kills
        body = {
            "model": CHAT_MODEL,
            "prompt": "go",
            "max_tokens": TOKENS,
            "stream": True,
        }
        text, is_done, heard = "", False, time.monotonic()
        try:
            async with session.post(f"{self.base}/v1/completions", json=body) as told:
                async for line in told.content:
                    if line.startswith(b"data: {"):
                        account.longest = max(account.longest, time.monotonic() - heard)
                        heard = time.monotonic()
                        chunk = json.loads(line[6:])
                        if "error" in chunk:
                            account.errors.append(chunk["error"]["message"])
                            break
                        text += "".join(each["text"] for each in chunk["choices"])
                    is_done = is_done or line.startswith(b"data: [DONE]")
        except aiohttp.ClientError:
            if self.is_down or self.kills > kills_before:
                account.broken += 1
                await asyncio.sleep(0.5)
                return
        if is_done and text != EXPECTED:
            account.errors.append(f"a wrong text: {text}")
        account.finished += is_done and text == EXPECTED
        account.wrong += is_done and text != EXPECTED
        account.failed += not is_done

    async def ask(self, session: aiohttp.ClientSession, place: int) -> None:
        """One whole answer."""
        account, kills_before = self.account, self.kills
        prompt = f"whole {place}"
        body = {"model": CHAT_MODEL, "prompt": prompt, "max_tokens": 4}
        try:
            async with session.post(f"{self.base}/v1/completions", json=body) as told:
                answer = await told.json(content_type=None)
        except aiohttp.ClientError:
            is_gateways = self.is_down or self.kills > kills_before
            account.answers_broken += is_gateways
            account.answers_failed += not is_gateways
            return
        if told.status != 200:
            account.answers_failed += 1
            account.errors.append(str(answer))
            return
        account.answered += 1
        account.answers_wrong += answer["choices"][0]["text"] != answer_text(prompt)

    async def load(self) -> None:
        """Streams and whole answers, while everything is killed in turn."""
        end = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=LAST_SECONDS)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector
        ) as session:

            async def streams() -> None:
                while not end.is_set():
                    await self.stream(session)

            async def answers() -> None:
                sent: list[asyncio.Task[None]] = []
                while not end.is_set():
                    sent.append(asyncio.create_task(self.ask(session, len(sent))))
                    await asyncio.sleep(1 / RATE)
                await asyncio.gather(*sent)

            clients = [asyncio.create_task(streams()) for _ in range(STREAMS)]
            clients.append(asyncio.create_task(answers()))
            for victim in VICTIMS:
                await asyncio.sleep(PAUSE_SECONDS)
                print(f"  {victim} is killed; {self.account}", flush=True)
                await asyncio.to_thread(self.kill, victim)
            await asyncio.sleep(PAUSE_SECONDS)
            end.set()
            await asyncio.gather(*clients)

    # The batch.

    def call(self, path: str, data: bytes | None = None, kind: str = "") -> bytes:
        """One request; its body."""
        headers = {"Content-Type": kind or "application/json"}
        request = urllib.request.Request(f"{self.base}/v1/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as told:
            found: bytes = told.read()
        return found

    def begin_batch(self) -> str:
        """Upload the rows, and make a batch of them; its id."""
        rows = b"".join(_row(number) for number in range(ROWS))
        form = b'--m\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        parts = form % (b"purpose", b"", b"batch")
        parts += form % (b"file", b'; filename="in.jsonl"', rows)
        kind = "multipart/form-data; boundary=m"
        file = json.loads(self.call("files", parts + b"--m--\r\n", kind))["id"]
        asked = {
            "input_file_id": file,
            "endpoint": "/v1/completions",
            "completion_window": "1h",
        }
        return str(json.loads(self.call("batches", json.dumps(asked).encode()))["id"])

    def read_batch(self, batch: str) -> tuple[int, int]:
        """Wait for its end; rows that are lost, and that are there twice."""

        def completed() -> Any:
            told = json.loads(self.call(f"batches/{batch}"))
            return told if told["status"] == "completed" else None

        told = eventually(completed, within=LAST_SECONDS)
        lines = self.call(f"files/{told['output_file_id']}/content").splitlines()
        found = [json.loads(line)["custom_id"] for line in lines]
        return ROWS - len(set(found)), len(found) - len(set(found))


def _row(number: int) -> bytes:
    body = {"model": CHAT_MODEL, "prompt": f"row {number}", "max_tokens": 2}
    row = {
        "custom_id": f"row-{number}",
        "method": "POST",
        "url": "/v1/completions",
        "body": body,
    }
    return json.dumps(row).encode() + b"\n"


@contextmanager
def _ground() -> Iterator[Ground]:
    options = {"appendonly": "yes", "appendfsync": "always"}
    engine = ("--latency", str(ENGINE_SECONDS))
    with Rig(*engine, engines=2, limit=64, server_options=options) as rig:
        yield Ground(rig)


def gateway() -> Report:
    """50 streams, whole answers and a batch, while everything is killed in turn.

    Streams and answers of the gateway that is killed break: their clients see that.
    """
    with _ground() as ground:
        batch = ground.begin_batch()
        asyncio.run(ground.load())
        lost, twice = ground.read_batch(batch)
        found = ground.account
    for error in dict.fromkeys(found.errors):
        print(f"  {error}")
    rows = (
        ("streams", found.finished, found.wrong, found.failed, found.broken),
        (
            "whole answers",
            found.answered,
            found.answers_wrong,
            found.answers_failed,
            found.answers_broken,
        ),
        ("rows of the batch", ROWS - lost, twice, lost, 0),
    )
    return Report(
        ("what", "right", "wrong or twice", "failed or lost", "of the killed gateway"),
        rows,
        (
            Goal("streams that failed", found.failed + found.wrong, 0, at_most=True),
            Goal(
                "answers that failed",
                found.answers_failed + found.answers_wrong,
                0,
                at_most=True,
            ),
            Goal("rows lost or twice", lost + twice, 0, at_most=True),
            Goal("streams finished", found.finished, STREAMS),
        ),
        (
            f"killed in turn: {', '.join(VICTIMS)}",
            f"longest silence of a stream: {found.longest:.1f} s",
        ),
    )
