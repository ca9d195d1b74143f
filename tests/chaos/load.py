"""Load whose every request is accounted for, watched from outside the workers."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import redis
from celery import Celery
from kombu.utils.json import loads

from benchmarks.report import Cell
from modelserver.store import Store
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually

COLUMNS = (
    "run",
    "sent",
    "answered",
    "lost",
    "wrong",
    "set aside",
    "stored twice",
    "run twice",
    "rerun p50 s",
    "rerun max s",
    "alive",
)
FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


@dataclass(frozen=True, slots=True)
class Account:
    """What became of one run's requests.

    ``reruns`` are seconds from the fault until each request that it had struck was
    answered; ``set_aside`` counts those given up because too many workers died with
    them, which is an answer too.
    """

    name: str
    sent: int
    answered: int
    wrong: int
    set_aside: int
    stored_twice: int
    run_twice: int
    reruns: tuple[float, ...]
    alive: int

    @property
    def lost(self) -> int:
        """Requests without any answer at the end."""
        return self.sent - self.answered

    def quantile(self, share: float) -> float:
        """That quantile of the reruns; NaN if nothing was struck."""
        if not self.reruns:
            return float("nan")
        ordered = sorted(self.reruns)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def row(self) -> tuple[Cell, ...]:
        """The account as a row under COLUMNS."""
        return (
            self.name,
            self.sent,
            self.answered,
            self.lost,
            self.wrong,
            self.set_aside,
            self.stored_twice,
            self.run_twice,
            self.quantile(0.5),
            self.quantile(1.0),
            self.alive,
        )


class Ground(Protocol):
    """What a load runs on: a server under an address, and what is known of the rest."""

    store: Store

    @property
    def url(self) -> str:
        """The server's address now."""

    def client(self) -> Celery:
        """A client application."""

    def keep(self, callback: Any, *arguments: Any) -> None:
        """Call this at the end."""

    def executed(self) -> dict[str, int]:
        """How often the engines that live have executed each prompt."""

    def living(self) -> int:
        """Workers and engines that run."""


class Watcher:
    """Counts final publications of each result, on a connection of its own.

    ``answered`` is when each was first published, ``stored`` how often. Where the
    server restarts, publications meanwhile are not seen: ``Load`` reads the keys too.
    """

    def __init__(self, url: str) -> None:
        self.stored: Counter[str] = Counter()
        self.answered: dict[str, float] = {}
        self._url = url
        self._stop = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError("the watcher could not subscribe")

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with redis.Redis.from_url(self._url) as client:
                    self._listen(client.pubsub())
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.02)

    def _listen(self, pubsub: redis.client.PubSub) -> None:
        pubsub.psubscribe("*celery-task-meta-*")
        while not self._stop.is_set():
            message = pubsub.get_message(timeout=0.2)
            if message is None:
                continue
            self._listening.set()
            if message["type"] == "pmessage":
                meta = json.loads(message["data"])
                if meta["status"] in FINAL:
                    self.stored[meta["task_id"]] += 1
                    self.answered.setdefault(meta["task_id"], time.monotonic())


class Load:
    """Requests with a prompt each, sent through the public API."""

    def __init__(self, rig: Ground, name: str = "load") -> None:
        self.rig = rig
        self.name = name
        self.app = rig.client()
        self.watcher = Watcher(rig.url)
        rig.keep(self.watcher.stop)
        #: Request's id -> its prompt.
        self.prompts: dict[str, str] = {}
        self.accepted_at: dict[str, float] = {}
        self.struck_at: dict[str, float] = {}
        self._numbers = itertools.count()

    def send(self, number: int, **options: object) -> list[str]:
        """Submit so many more, with options of ``apply_async``; their ids.

        On any thread. What is refused is raised, and not counted as sent.
        """
        return [self.ask(max_tokens=64, **options) for _ in range(number)]

    def ask(self, text: str = "", max_tokens: int = 64, **options: object) -> str:
        """Submit one whose prompt goes on with this text; its id."""
        prompt = f"{self.name} {next(self._numbers)}{text}"
        complete = self.app.modelserver_tasks[0]
        sent = complete.apply_async((prompt,), {"max_tokens": max_tokens}, **options)
        self.accepted_at[sent.id] = time.monotonic()
        self.prompts[sent.id] = prompt
        return str(sent.id)

    def answered(self) -> int:
        """How many are answered so far."""
        return len(self.watcher.answered)

    def wait(self, number: int, within: float = 60.0) -> None:
        """Until so many are answered."""
        eventually(lambda: self.answered() >= number, within)

    def strike(self, ids: Iterable[str]) -> None:
        """Note that a fault has struck these requests now."""
        now = time.monotonic()
        self.struck_at.update(dict.fromkeys(ids, now))

    def unanswered(self) -> set[str]:
        """The requests that are not answered yet."""
        return set(self.prompts) - set(self.watcher.answered)

    def held_by(self, worker: str) -> set[str]:
        """The requests that a worker holds by the server's account."""
        key = self.rig.store.keys.unacked(worker)
        values: Any = self.rig.store.client.hgetall(key)
        bodies = [v.partition("\n")[2] for tag, v in values.items() if tag != "next"]
        return {json.loads(body)["headers"]["id"] for body in bodies}

    def settle(self, within: float, gone: Collection[str] = ()) -> None:
        """Until every request but those ``gone`` is answered, or ``within`` is over."""
        deadline, awaited = time.monotonic() + within, set(self.prompts) - set(gone)
        while time.monotonic() < deadline and awaited - set(self.results()):
            time.sleep(0.2)
        # A result stored twice would come right behind.
        time.sleep(0.5)

    def account(self, run: str, alive: Callable[[], int] | None = None) -> Account:
        """What became of the requests."""
        results = self.results()
        executed = self.rig.executed()
        aside = {key for key in results if _is_set_aside(results[key])}
        again = sum(executed.get(prompt, 0) > 1 for prompt in self.prompts.values())
        return Account(
            name=run,
            sent=len(self.prompts),
            answered=len(results),
            wrong=sum(
                results[key] != answer_text(self.prompts[key])
                for key in results.keys() - aside
            ),
            set_aside=len(aside),
            stored_twice=sum(times > 1 for times in self.watcher.stored.values()),
            run_twice=again,
            reruns=self._reruns(results),
            alive=alive() if alive else self.rig.living(),
        )

    def _reruns(self, results: Mapping[str, object]) -> tuple[float, ...]:
        """Seconds from the fault to the answer, of what had none at the fault.

        Without those that were published while the watcher's connection was down.
        """
        published = self.watcher.answered
        seconds = []
        for key, at in self.struck_at.items():
            if key in published:
                seconds.append(published[key] - at)
            elif key not in results:
                seconds.append(float("inf"))
        return tuple(one for one in seconds if one > 0)

    def results(self) -> dict[str, object]:
        """Final results by request, read from the store's keys."""
        found: dict[str, object] = {}
        ids = list(self.prompts)
        client = redis.Redis.from_url(self.rig.url)
        try:
            for start in range(0, len(ids), 500):
                part = ids[start : start + 500]
                values = client.mget([self._key(one) for one in part])
                for one, value in zip(part, values, strict=True):
                    meta: Any = _meta(value) if value else {"status": "PENDING"}
                    if meta["status"] in FINAL:
                        found[one] = meta["result"]
        except (redis.ConnectionError, redis.TimeoutError):
            return found
        finally:
            client.close()
        return found

    def _key(self, request: str) -> str:
        return str(self.app.backend.backend_key(request))


def _meta(value: bytes | str) -> Any:
    """A stored result; kombu's JSON, which knows vectors."""
    return loads(value)  # type: ignore[no-untyped-call]


def _is_set_aside(result: object) -> bool:
    return isinstance(result, dict) and result.get("exc_type") == "PoisonError"
