"""The demo's requests: sends them, watches them, and counts their answers."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery import states
from celery.result import AsyncResult
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from modelserver.api import client
from modelserver.errors import ModelserverError
from modelserver.operations.status import EngineStatus
from modelserver.settings import Settings
from modelserver.store import Store
from modelserver.store.fleet.engines import read_engines

#: How many completions are asked for.
DEMO_COMPLETIONS = 200
#: How many chats are asked for.
DEMO_CHATS = 50
#: How many embeddings are asked for.
DEMO_EMBEDDINGS = 200
#: Tokens for each answer: enough that many are under way when the engine is killed.
DEMO_TOKENS = 32
#: Everything must be answered this long after the last request, in seconds.
DEMO_ANSWER_SECONDS = 300.0
#: What prompts are about.
SUBJECTS = ("a server", "a queue", "a token", "a prompt", "the cache", "a batch")


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What became of the demo's requests."""

    sent: int
    answered: int
    failed: int
    #: How many were answered more than once.
    twice: int
    #: Seconds from the engine's kill until it was ready again; None if it never was.
    ready_seconds: float | None

    @property
    def perfect(self) -> bool:
        """Whether everything was answered exactly once and the engine came back."""
        return (
            self.answered == self.sent
            and not self.failed
            and not self.twice
            and self.ready_seconds is not None
        )

    def line(self) -> str:
        """The closing line."""
        back = "never" if self.ready_seconds is None else f"{self.ready_seconds:.1f}"
        return (
            f"sent {self.sent}, answered {self.answered}, failed {self.failed}, "
            f"answered twice {self.twice}, seconds from kill to ready again {back}"
        )


@dataclass
class Load:
    """Sends the requests, and counts answers as they are published in Redis.

    A result is published each time it is stored: what is published twice was answered
    twice.
    """

    settings: Settings
    store: Store
    screen: Console
    #: Kind and result of each request, by its id.
    results: dict[str, tuple[str, AsyncResult]] = field(default_factory=dict)
    #: How often each id was published.
    published: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.app = client(self.settings)
        self.complete, self.chat, self.embed = self.app.modelserver_tasks

    def first_answer(self) -> None:
        """Wait for one completion."""
        self.complete.delay("Once upon a time", max_tokens=4).get(timeout=60)

    def run(self, victim: EngineStatus) -> LoadOutcome:
        """Send everything, kill the victim half-way, wait for all answers."""
        stop = threading.Event()
        listener = threading.Thread(target=self._listen, args=(stop,), daemon=True)
        listener.start()
        columns = (
            TextColumn("{task.description:24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        try:
            with Progress(*columns, console=self.screen) as progress:
                bars = self._send(progress)
                ready = self._watch(progress, bars, victim)
        finally:
            stop.set()
            listener.join(timeout=5)
        return self._count(ready)

    def _send(self, progress: Progress) -> dict[str, TaskID]:
        kinds: dict[str, tuple[int, Callable[[int], AsyncResult]]] = {
            "completions": (DEMO_COMPLETIONS, self._complete),
            "chats": (DEMO_CHATS, self._chat),
            "embeddings": (DEMO_EMBEDDINGS, self._embed),
        }
        bars = {}
        for kind, (total, send) in kinds.items():
            bars[kind] = progress.add_task(kind, total=total)
            for number in range(total):
                result = send(number)
                self.results[result.id] = (kind, result)
        return bars

    def _complete(self, number: int) -> AsyncResult:
        subject = SUBJECTS[number % len(SUBJECTS)]
        return self.complete.delay(
            f"{number}: Once upon a time there was {subject} that",
            max_tokens=DEMO_TOKENS,
        )

    def _chat(self, number: int) -> AsyncResult:
        question = f"Question {number}: what is {SUBJECTS[number % len(SUBJECTS)]}?"
        return self.chat.delay(
            [{"role": "user", "content": question}], max_tokens=DEMO_TOKENS
        )

    def _embed(self, number: int) -> AsyncResult:
        return self.embed.delay(
            f"Sentence {number} about {SUBJECTS[number % len(SUBJECTS)]}."
        )

    def _watch(
        self, progress: Progress, bars: dict[str, TaskID], victim: EngineStatus
    ) -> float | None:
        """Draw until all is answered and the victim is back; seconds it was away."""
        end = time.monotonic() + DEMO_ANSWER_SECONDS
        killed_at: float | None = None
        ready: float | None = None
        while time.monotonic() < end:
            done = self._done()
            for kind, bar in bars.items():
                progress.update(bar, completed=done[kind])
            if killed_at is None and done["completions"] >= DEMO_COMPLETIONS // 2:
                killed_at = self._kill(victim, progress)
            elif killed_at is not None and ready is None:
                if self._is_back(victim):
                    ready = time.monotonic() - killed_at
                    progress.console.print(
                        f"{victim.id} is ready again after {ready:.1f} s"
                    )
            elif ready is not None and sum(done.values()) == len(self.results):
                return ready
            time.sleep(0.05)
        return ready

    def _kill(self, victim: EngineStatus, progress: Progress) -> float:
        engine = read_engines(self.store)[victim.id]
        os.kill(engine.pid, signal.SIGKILL)
        progress.console.print(
            f"half-way: killed engine {engine.id} (pid {engine.pid}) with SIGKILL; its "
            "requests wait"
        )
        return time.monotonic()

    def _is_back(self, victim: EngineStatus) -> bool:
        engine = read_engines(self.store)[victim.id]
        return engine.incarnation > victim.incarnation and engine.state.serves

    def _done(self) -> Counter[str]:
        published = list(self.published)
        return Counter(
            self.results[name][0] for name in published if name in self.results
        )

    def _listen(self, stop: threading.Event) -> None:
        prefix = self.app.backend.task_keyprefix
        prefix = prefix.decode() if isinstance(prefix, bytes) else prefix
        with self.store.client.pubsub() as pubsub:
            pubsub.psubscribe(f"{prefix}*")
            while not stop.is_set():
                message = pubsub.get_message(timeout=0.1)
                if message and message["type"] == "pmessage":
                    self.published[message["channel"].removeprefix(prefix)] += 1

    def _count(self, ready: float | None) -> LoadOutcome:
        found = Counter(result.state for _, result in self.results.values())
        failed = sum(found[state] for state in (states.FAILURE, states.REVOKED))
        return LoadOutcome(
            sent=len(self.results),
            answered=found[states.SUCCESS],
            failed=failed,
            twice=sum(
                times > 1
                for name, times in self.published.items()
                if name in self.results
            ),
            ready_seconds=ready,
        )

    def show_answers(self) -> None:
        """Show two answers of each kind."""
        shown: Counter[str] = Counter()
        for kind, result in self.results.values():
            if shown[kind] < 2:
                shown[kind] += 1
                self.screen.print(f"[bold]{kind:12}[/bold] {escape(_short(result))}")


def _short(result: AsyncResult) -> str:
    try:
        value: Any = result.get(timeout=10)
    except ModelserverError as error:
        return f"{type(error).__name__}: {error}"
    if isinstance(value, list):
        numbers = ", ".join(f"{number:.4f}" for number in value[:4])
        return f"vector of {len(value)}: [{numbers}, ...]"
    return repr(value)[:100]
