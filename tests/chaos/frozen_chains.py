"""Workers that freeze beyond their lease with chains and links on them."""

import signal
import time

from celery import chain
from celery.result import AsyncResult

from benchmarks.report import Goal, Report
from benchmarks.rig import Rig
from modelserver.store.fleet.workers import read_answers, read_backlog
from tests.engine.openai_api import answer_text
from tests.support.processes import eventually

#: Chains, and steps of each; each step has a link.
CHAINS, STEPS = 200, 3
#: How often one of the two workers freezes, and for how long, in seconds.
FREEZES, FROZEN_SECONDS = 4, 5.0
#: A queue that no worker reads, for links.
LINKS = "links"


def frozen_chains() -> Report:
    """200 chains of three linked steps; workers freeze again and again for 5 s.

    The lease is 2 s, so another worker takes over each time. Each step must run its
    links once, and the last must be answered from the answers of those before it.
    """
    with Rig("--latency", "1.0", limit=64, lease_seconds=2.0) as rig:
        workers = [rig.worker(), rig.worker()]
        lasts = _send(rig)
        for turn in range(FREEZES):
            worker = workers[turn % 2]
            time.sleep(1.5)
            worker.signal(signal.SIGSTOP)
            time.sleep(FROZEN_SECONDS)
            worker.signal(signal.SIGCONT)
        eventually(lambda: all(last.ready() for last in lasts), within=120)
        eventually(lambda: read_backlog(rig.store, LINKS) >= CHAINS * STEPS)
        # A frozen worker that has come back would publish late.
        time.sleep(FROZEN_SECONDS)
        links = read_backlog(rig.store, LINKS)
        texts = [last.get(timeout=5) for last in lasts]
        totals = read_answers(rig.store)
    wrong = sum(text != _right(place) for place, text in enumerate(texts))
    goals = (
        Goal("wrong", wrong, 0, at_most=True),
        Goal("links lost", max(0, CHAINS * STEPS - links), 0, at_most=True),
        Goal("links run twice", max(0, links - CHAINS * STEPS), 0, at_most=True),
    )
    fenced, repeated = totals.get("fenced", 0), totals.get("repeated", 0)
    rows = ((CHAINS, CHAINS * STEPS, links, wrong, fenced, repeated),)
    columns = ("chains", "steps", "links run", "wrong", "fenced", "repeated")
    return Report(columns, rows, goals)


def _send(rig: Rig) -> list[AsyncResult]:
    app = rig.client()
    complete, *_ = app.modelserver_tasks
    link = app.signature("mine.save", queue=LINKS)

    def steps(place: int) -> chain:
        first = complete.s(f"chain {place}").set(link=[link])
        rest = [complete.s().set(link=[link]) for _ in range(STEPS - 1)]
        return chain(first, *rest)

    return [steps(place).apply_async() for place in range(CHAINS)]


def _right(place: int) -> str:
    text = f"chain {place}"
    for _ in range(STEPS):
        text = answer_text(text)
    return text
