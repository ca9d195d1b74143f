"""Who has how much in a queue."""

from pathlib import Path

from modelserver.api import client
from modelserver.operations.status import read_status
from modelserver.settings import load
from modelserver.store.state import connect
from modelserver.store.workers import read_submitters
from tests.support.fleets import model
from tests.support.processes import ValkeyProcess


def test_the_depth_of_a_queue_is_told_by_submitter(
    valkey: ValkeyProcess, tmp_path: Path
):
    head = f'[redis]\nurl = "{valkey.url}"\nprefix = "who:"\n'
    (tmp_path / "fleet.toml").write_text(head + model("m"))
    settings = load({"MODELSERVER_HOME": str(tmp_path)}, cwd=tmp_path)
    store, app = connect(settings), client(settings)
    complete = app.modelserver_tasks[0]
    for submitter, number in (("flood", 5), ("calm", 2)):
        for place in range(number):
            complete.apply_async((f"{place}",), headers={"submitter": submitter})
    assert read_submitters(store, "m") == {"flood": 5, "calm": 2}
    (found,) = read_status(store, settings).models
    assert next(iter(found.queue.submitters.items())) == ("flood", 5)
    app.backend.result_consumer.stop()
    app.close()
    store.client.close()
