"""Who has how much in a queue, and since when."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelserver.api import InferenceTask, client
from modelserver.operations.status import read_status
from modelserver.settings import Settings, load
from modelserver.store.fleet.workers import read_oldest, read_submitters
from modelserver.store.server.state import Store, connect
from tests.support.fleets import model
from tests.support.processes import ValkeyProcess


@contextmanager
def opened(
    valkey: ValkeyProcess, folder: Path
) -> Iterator[tuple[Store, Settings, InferenceTask]]:
    """A fleet of one model that nobody serves, and its task."""
    head = f'[redis]\nurl = "{valkey.url}"\nprefix = "who:"\n'
    (folder / "fleet.toml").write_text(head + model("m"))
    settings = load({"MODELSERVER_HOME": str(folder)}, cwd=folder)
    store, app = connect(settings), client(settings)
    yield store, settings, app.modelserver_tasks[0]
    app.backend.result_consumer.stop()
    app.close()
    store.client.close()


def test_the_depth_of_a_queue_is_told_by_submitter(
    valkey: ValkeyProcess, tmp_path: Path
):
    with opened(valkey, tmp_path) as (store, settings, complete):
        for submitter, number in (("flood", 5), ("calm", 2)):
            for place in range(number):
                complete.apply_async((f"{place}",), headers={"submitter": submitter})
        assert read_submitters(store, "m") == {"flood": 5, "calm": 2}
        (found,) = read_status(store, settings).models
        assert next(iter(found.queue.submitters.items())) == ("flood", 5)


def test_the_oldest_request_is_found_in_whichever_list_it_waits(
    valkey: ValkeyProcess, tmp_path: Path
):
    with opened(valkey, tmp_path) as (store, _, complete):
        assert read_oldest(store, ["m", "nobody"]) == {"m": None, "nobody": None}
        before = time.time()
        told = 'say "sent_at": 5'
        complete.apply_async((told,), priority=9, headers={"submitter": "a"})
        between = time.time()
        complete.apply_async((told,), headers={"submitter": "b"})
        complete.apply_async((told,), headers={"submitter": "c"})
        found = read_oldest(store, ["m"])["m"]
        # The header has hundredths of seconds.
        assert found is not None
        assert before - 0.01 < found < between + 0.01
