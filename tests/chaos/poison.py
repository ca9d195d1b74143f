"""Messages that nobody can digest, under load; a full server; a killer of workers."""

import base64
import json
import sys
import uuid

from benchmarks.report import Goal, Report
from benchmarks.rig import CHAT_MODEL, Rig
from modelserver.errors import StoreFullError
from modelserver.operations.status import read_status
from modelserver.store.messages.dead_letters import dead_letters
from modelserver.store.messages.reaps import MOST_REAPS
from tests.chaos.load import Account, Load
from tests.chaos.workers import report
from tests.support.processes import eventually

#: Good requests beside the poisonous ones, of the three runs.
GOOD = 2_000
BESIDE_A_KILLER = 1_000
QUEUED_WHEN_FULL = 2_000
#: Poisonous messages of each kind.
OF_EACH = 20
TASKS = "tests.support.celery_tasks"
#: Most lines that workers may log for each poisonous message.
LINES_EACH = 1.2
MIB = 2**20

#: Bodies that no worker can run.
BODIES = (
    '[["a"], {"temperature": NaN}, null]',
    '[["a"], {',
    '[["\\ud83d"], {}, null]',
    '[["a"], {}]',
    '{"args": 1}',
    '["a", {}, null]',
    '[["a"], 5, null]',
    "null",
    "",
)
#: Headers that no worker can read.
HEADERS: tuple[dict[str, object], ...] = (
    {"eta": "tomorrow"},
    {"expires": 7},
    {"id": None},
    {"id": {}},
    {"task": "not.there"},
    {"timelimit": "x"},
    {"compression": "application/x-gzip"},
    {"deadline_at": "soon"},
)
#: What is no message at all.
JUNK = ("junk", "", "[]", "3", "{}", '{"headers": []}')


def poison_messages() -> Report:
    """Poison of every kind among good requests; a killer of workers; a full server.

    Every good request gets its right answer, once; a poisonous one gets an error, and
    the logs stay small.
    """
    poisoned, refused, lines = _poisoned()
    killed, letters = _killed()
    full, turned_away = _full()
    told = report([poisoned, killed, full])
    sent = OF_EACH * (len(BODIES) + len(HEADERS) + len(JUNK))
    named = OF_EACH * (len(BODIES) + len(HEADERS) - 2)
    goals = (
        Goal("poisonous without an error", named - refused, 0, at_most=True),
        Goal("log lines for each", lines / sent, LINES_EACH, at_most=True),
        Goal("killers set aside", letters, 1),
        Goal("others set aside", killed.set_aside, 0, at_most=True),
        Goal("refused while full", turned_away, 1),
    )
    return Report(told.columns, told.rows, (*told.goals, *goals), told.notes)


def _poisoned() -> tuple[Account, int, int]:
    with Rig("--latency", "0.05", limit=64) as rig:
        workers = [rig.worker(), rig.worker()]
        before = sum(_lines(rig, number) for number in range(len(workers)))
        load, ids = Load(rig), []
        poison = list(_messages(ids))
        for number in range(GOOD // 50):
            load.send(50)
            for raw in poison[number :: GOOD // 50]:
                rig.store.client.lpush(rig.store.keys.queue(CHAT_MODEL)[0], raw)
        load.settle(within=120)
        backend = load.app.backend
        refused = sum(
            '"FAILURE"' in (rig.store.client.get(backend.backend_key(one)) or "")
            for one in ids
        )
        lines = sum(_lines(rig, number) for number in range(len(workers)))
        return load.account("poison of all kinds"), refused, lines - before


def _lines(rig: Rig, number: int) -> int:
    return (rig.folder / f"worker-{number}.log").read_text().count("\n")


def _messages(ids: list[str]) -> list[str]:
    """Poisonous messages; the ids of those whose callers wait are added to ``ids``."""
    raws = []
    for _ in range(OF_EACH):
        kinds = [(body, {}) for body in BODIES]
        kinds += [('[["a"], {}, null]', headers) for headers in HEADERS]
        for body, headers in kinds:
            task = str(uuid.uuid4())
            values = {"id": task, "task": "modelserver.complete"} | headers
            if values["id"] == task:
                ids.append(task)
            raws.append(_message(body, values))
        raws += JUNK
    return raws


def _message(body: str, headers: dict[str, object]) -> str:
    encoded = base64.b64encode(body.encode()).decode()
    properties = {"body_encoding": "base64", "delivery_tag": "x"}
    return json.dumps(
        {
            "body": encoded,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties | {"delivery_info": {}},
        }
    )


def _killed() -> tuple[Account, int]:
    """One request kills every worker that runs it, while others are answered."""
    with Rig("--latency", "0.1", limit=64, lease_seconds=1.0) as rig:
        load = Load(rig)
        load.send(BESIDE_A_KILLER // 2)
        killer = load.app.send_task("die", queue="control")
        load.send(BESIDE_A_KILLER // 2)
        argv = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-I", TASKS]
        for number in range(MOST_REAPS + 1):
            worker = rig.program([*argv, "-n", f"k{number}@x"], f"killed-{number}")
            if number < MOST_REAPS:
                worker.process.wait(60)
        load.settle(within=60)
        letters = sum(one.task == killer.id for one in dead_letters(rig.store))
        return load.account("a killer of workers"), letters


def _full() -> tuple[Account, int]:
    """A server fills up with a backlog, and is emptied again."""
    with Rig("--latency", "0.05", limit=64) as rig:
        load, client = Load(rig), rig.store.client
        for _ in range(QUEUED_WHEN_FULL):
            load.ask(" word" * 200)
        used = int(client.info("memory")["used_memory"])
        for _ in range(20):
            client.rpush("ballast", "x" * MIB)
        client.config_set("maxmemory", used + 20 * MIB)
        rig.worker()
        turned_away = 0
        for _ in range(200):
            try:
                load.send(1)
            except StoreFullError:
                turned_away += 1
        load.settle(within=120)
        client.delete("ballast")
        short = lambda: read_status(rig.store, rig.settings).memory_short  # noqa: E731
        eventually(lambda: not short())
        load.send(200)
        load.settle(within=60)
        return load.account("full, then emptied"), turned_away
