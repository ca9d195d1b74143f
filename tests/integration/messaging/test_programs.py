"""Client programs as people write them: forked, interrupted, left with open results."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, eventually
from tests.support.workers import PATIENCE, FleetSite

#: A parent that has sent, waited, awaited and still waits, before it forks.
FORKS = """
import asyncio, multiprocessing, threading
from modelserver import complete, embed

def ask(child):
    answers = [complete.delay(f"child {child} asks {n}") for n in range(20)]
    texts = [answer.get(timeout=60) for answer in answers]
    texts.append(asyncio.run(complete.aio(f"child {child} awaits")))
    return len([text for text in texts if f"{text}"])

def send_all_the_time(stop):
    while not stop.is_set():
        complete.delay("while the parent forks").get(timeout=60)

if __name__ == "__main__":
    complete.delay("before").get(timeout=60)
    asyncio.run(complete.aio("before, awaited"))
    held = [complete.delay(f"held {n}") for n in range(100)]
    complete.AsyncResult("nobody sends this").then(print)
    stop = threading.Event()
    threads = [threading.Thread(target=send_all_the_time, args=(stop,)) for _ in "12"]
    for thread in threads:
        thread.start()
    with multiprocessing.get_context("fork").Pool(8) as pool:
        print(pool.map_async(ask, range(8), chunksize=1).get(timeout=100))
    stop.set()
    for thread in threads:
        thread.join()
    print(len([answer.get(timeout=60) for answer in held]))
"""
#: A parent one of whose threads has every lock that a client takes, while it forks.
LOCKS = """
import os, threading
from modelserver import complete
from modelserver.api import default_client

app = default_client()
complete.delay("before").get(timeout=60)
held = [app.clock.mutex, app._finalize_mutex]
for thing in (app, app.amqp, app.backend, app.connection_for_write()):
    for kind in type(thing).__mro__:
        held += [getattr(value, "lock", None) for value in vars(kind).values()]
held = [lock for lock in held if hasattr(lock, "acquire")]
taken, forked = threading.Event(), threading.Event()

def take():
    for lock in held:
        lock.acquire()
    taken.set()
    forked.wait(60)
    for lock in held:
        lock.release()

thread = threading.Thread(target=take)
thread.start()
taken.wait(10)
child = os.fork()
if child == 0:
    answer = complete.delay("in the child").get(timeout=60)
    print(len(held) > 10, answer != "", flush=True)
    os._exit(0)
forked.set()
thread.join()
os.waitpid(child, 0)
print(complete.delay("after").get(timeout=60) != "", flush=True)
"""
#: Tasks and results go to other processes and come back, as pools and schedulers of
#: jobs send them; another application is the current one there.
PICKLES = """
import copy, multiprocessing, pickle, sys
from celery import Celery, group
from modelserver import chat, complete, embed

Celery("of the pipeline", broker="redis://127.0.0.1:1/0").set_current()

def send(prompt):
    return complete.delay(prompt)

def send_group(prompts):
    return group(complete.s(prompt) for prompt in prompts)()

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            texts = pool.map_async(complete, ["a", "b"]).get(timeout=60)
            sent = pool.map_async(send, ["c"]).get(timeout=60)
            sent += pool.map_async(complete.delay, ["d"]).get(timeout=60)
            groups = pool.map_async(send_group, [["e", "f"]]).get(timeout=60)
        texts += [each.get(timeout=60) for each in sent]
        texts += groups[0].get(timeout=60)
        texts += copy.copy(groups[0]).get(timeout=60)
        many = complete.app.ResultSet(sent)
        texts += pickle.loads(pickle.dumps(many)).get(timeout=60)
        texts += [copy.deepcopy(sent[0]).get(timeout=60)]
        print(len([text for text in texts if isinstance(text, str)]))
    same = [pickle.loads(pickle.dumps(task)) for task in (complete, chat, embed)]
    print(*(task.name for task in same), all(task.app is complete.app for task in same))
"""
#: A notebook: what is missing at first is set later, and the cell is run again.
NOTEBOOK = """
import os
given = {n: os.environ.pop(n) for n in list(os.environ) if n.startswith("MODELSERVER_")}
from threading import Thread
from modelserver import ModelserverError, chat, complete, embed
from modelserver import embed_texts, map_prompts

calls = (
    lambda: complete("a"),
    lambda: complete.delay("a").get(timeout=60),
    lambda: chat([{"role": "user", "content": "a"}]),
    lambda: embed("a"),
    lambda: embed_texts(["a"]),
    lambda: [answer.text for answer in map_prompts(["a"])],
)

def run():
    for call in calls:
        try:
            print(len(call()) > 0)
        except ModelserverError as error:
            print(type(error).__name__)

run()
os.environ["MODELSERVER_FLEET"] = "/nowhere/fleet.toml"
run()
os.environ.update(given)
threads = [Thread(target=complete, args=(f"in thread {n}",)) for n in range(8)]
[thread.start() for thread in threads]
run()
[thread.join() for thread in threads]
"""
#: A program that waits until it is interrupted; the last line says when.
WAITS = """
import asyncio
from celery import group
from celery.result import ResultSet
from modelserver import complete
held = [complete.AsyncResult(f"never sent {n}") for n in range(3)]
print("waits", flush=True)
%s
"""


def run(
    fleet: FleetSite, program: str, option: str = "-c"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, option, program],
        cwd=ROOT,
        env={**os.environ, **fleet.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_children_of_a_parent_that_has_sent_get_their_answers(fleet: FleetSite):
    done = run(fleet, FORKS)
    assert done.stdout.splitlines() == [str([21] * 8), "100"], done.stderr
    assert not done.stderr


def test_a_child_is_not_held_up_by_locks_of_its_parents_threads(fleet: FleetSite):
    done = run(fleet, LOCKS)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr
    assert not done.stderr


def test_what_was_missing_can_be_set_later(fleet: FleetSite, tmp_path: Path):
    program = tmp_path / "notebook.py"
    program.write_text(f"import os; os.chdir({str(tmp_path)!r})\n{NOTEBOOK}")
    done = run(fleet, str(program), option="--")
    said = done.stdout.splitlines()
    assert said[:6] == ["StoreUnreachableError"] * 6, done.stderr
    assert said[6:12] == ["ConfigurationError"] * 6, done.stderr
    assert said[12:] == ["True"] * 6, done.stderr
    assert not done.stderr


def test_tasks_and_results_travel_between_processes(fleet: FleetSite, tmp_path: Path):
    program = tmp_path / "pickles.py"
    program.write_text(PICKLES)
    done = run(fleet, str(program), option="--")
    names = "modelserver.complete modelserver.chat modelserver.embed True"
    assert done.stdout.splitlines() == ["11", "11", names], done.stderr
    assert not done.stderr


@pytest.mark.parametrize(
    "ends",
    [
        "",
        "complete.AsyncResult('x').then(print)",
        "sys.exit(3)",
        "import asyncio; asyncio.run(complete.aio('awaited'))",
    ],
)
def test_a_program_ends_in_silence_with_results_that_it_did_not_wait_for(
    fleet: FleetSite, ends: str
):
    program = (
        # Held by a module that ends after ours and after what results need.
        "import json, sys; from modelserver import complete\n"
        "json.held = [complete.delay(f'held {n}') for n in range(200)]\n" + ends
    )
    done = run(fleet, program)
    assert done.stderr == ""
    assert done.returncode in (0, 3)


@pytest.mark.parametrize(
    "wait", ["held[0].get()", "complete.app.ResultSet(held).get()"]
)
def test_an_interrupted_wait_says_that_requests_go_on(fleet: FleetSite, wait: str):
    program = subprocess.Popen(
        [sys.executable, "-c", WAITS % wait],
        cwd=ROOT,
        env={**os.environ, **fleet.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout
    assert program.stdout.readline() == "waits\n"
    fleet_listens(fleet)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=PATIENCE)
    assert "requests that were sent go on" in said.splitlines()[-1]
    assert len(said.splitlines()) < 10


def fleet_listens(fleet: FleetSite) -> None:
    """Wait until somebody listens for a result that nobody sends."""
    channels = "*celery-task-meta-never sent*"
    eventually(lambda: fleet.store.client.pubsub_channels(channels), PATIENCE)
