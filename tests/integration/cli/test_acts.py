"""The commands that change something, as processes beside a real server."""

import json
from pathlib import Path
from typing import Any

from modelserver.store import Store
from modelserver.store.fleet.control import hold_control, read_wishes, write_wishes
from modelserver.store.fleet.workers import read_backlog
from modelserver.values import EngineSpec, Wish
from tests.integration.cli.test_commands import folder, report, run, settings, store

__all__ = ["folder", "settings", "store"]


def test_relaunch_names_the_incarnation_that_must_go(folder: Path, store: Store):
    report(store, "fast-0", "fast", "http://127.0.0.1:9")
    with hold_control(store, "test", 10) as token:
        wish = Wish(EngineSpec("fast-0", "fast", "a"), token=token)
        write_wishes(store, token, {"fast-0": wish})
    done = run(folder, "relaunch", "fast-0")
    assert done.returncode == 0
    assert "incarnation 1 goes" in done.stdout
    wish = read_wishes(store)["fast-0"]
    assert (wish.relaunch, wish.reason.split()[0]) == (1, "asked")


def test_relaunch_of_an_unknown_engine_says_which_there_are(folder: Path, store: Store):
    report(store, "fast-0", "fast", "http://127.0.0.1:9")
    done = run(folder, "relaunch", "slow-0")
    assert done.returncode == 1
    assert done.stderr == (
        "modelserver: there is no engine slow-0; there are: fast-0\n"
    )


def test_relaunch_of_an_engine_that_is_wanted_no_longer_is_refused(
    folder: Path, store: Store
):
    report(store, "fast-0", "fast", "http://127.0.0.1:9")
    done = run(folder, "relaunch", "fast-0")
    assert (done.returncode, "wanted no longer" in done.stderr) == (1, True)


REDELIVERED = {"delivery_info": {"redelivered": True}}


def bury(
    store: Store, task: str, properties: dict[str, Any] | None = REDELIVERED
) -> None:
    message: dict[str, Any] = {
        "headers": {"id": task, "crashes": 2},
        "body": "a secret prompt",
    }
    if properties:
        message["properties"] = properties
    letter = {
        "queue": "fast",
        "source": "cli:fast",
        "reason": "2 engines of fast died with it on them",
        "at": store.now(),
        "message": json.dumps(message),
    }
    store.client.hset(store.keys.dead, task, json.dumps(letter))


def test_dead_lists_the_reasons_and_no_prompt(folder: Path, store: Store):
    bury(store, "task-1")
    for arguments in (["dead"], ["dead", "--json"]):
        shown = run(folder, *arguments).stdout
        assert "task-1" in shown
        assert "2 engines of fast died" in shown
        assert "secret" not in shown


def test_dead_letters_can_all_be_sent_again(folder: Path, store: Store):
    bury(store, "task-1")
    bury(store, "task-2")
    store.client.set("cli:celery-task-meta-task-1", "the error")
    done = run(folder, "dead", "--resubmit", "all")
    assert done.stdout == ("task-1 waits in fast again\ntask-2 waits in fast again\n")
    assert read_backlog(store, "fast") == 2
    assert not store.client.exists("cli:celery-task-meta-task-1")
    message = json.loads(str(store.client.lindex("cli:fast", 0)))
    assert "crashes" not in message["headers"]
    assert message["properties"]["delivery_info"] == {}
    assert run(folder, "dead").stdout == "There are no dead letters.\n"


def test_a_dead_letter_that_never_went_back_can_be_sent_again(
    folder: Path, store: Store
):
    bury(store, "task-1", properties=None)
    assert "waits in fast" in run(folder, "dead", "--resubmit", "task-1").stdout
    message = json.loads(str(store.client.lindex("cli:fast", 0)))
    assert message.pop("headers").keys() == {"id", "sent_at"}
    assert message == {"body": "a secret prompt"}


def test_a_dead_letter_can_be_forgotten(folder: Path, store: Store):
    bury(store, "task-1")
    assert run(folder, "dead", "--discard", "task-1").stdout == "task-1 is forgotten\n"
    assert read_backlog(store, "fast") == 0


def test_an_unknown_dead_letter_is_named(folder: Path):
    done = run(folder, "dead", "--resubmit", "task-9")
    assert (done.returncode, "no dead letter task-9" in done.stderr) == (1, True)
