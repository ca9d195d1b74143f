"""Dead letters sent again, on a real server and through a real worker."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from celery import chain
from celery.states import FAILURE

from modelserver.errors import PoisonError
from modelserver.messaging.wire import result_key
from modelserver.store.batch import CRASHES, DEADLINE, REAPS
from modelserver.store.fleet.workers import read_oldest
from modelserver.store.messages.dead_letters import dead_letters, resubmit
from modelserver.store.server.state import connect_to
from tests.engine.openai_api import answer_text
from tests.support.processes import ValkeyProcess
from tests.support.workers import PATIENCE, FleetSite, open_fleet


def set_aside(site: FleetSite, task: str, aside: float) -> dict[str, Any]:
    """Bury the one message of a queue, as it was so many seconds ago."""
    queue = site.store.keys.queue("writer")[0]
    (text,) = site.store.client.lrange(queue, 0, -1)
    site.store.client.delete(queue)
    site.store.client.delete(site.store.keys.deadlines)
    message: dict[str, Any] = json.loads(text)
    message["headers"] |= {CRASHES: 2, REAPS: 1}
    message["headers"][DEADLINE] -= aside
    letter = {
        "queue": "writer",
        "reason": "r",
        "at": site.store.now() - aside,
        "source": queue,
        "message": json.dumps(message),
    }
    site.store.client.hset(site.store.keys.dead, task, json.dumps(letter))
    return message


def test_a_dead_letter_is_sent_again_as_if_it_were_new(
    tmp_path: Path, valkey: ValkeyProcess
):
    """With a deadline, its results elsewhere, and a later step that failed with it."""
    apart = valkey.url.removesuffix("0") + "1"
    extra = f'[redis]\nresults_url = "{apart}"\n'
    with open_fleet(tmp_path, valkey.url, extra) as site:
        results = connect_to(site.settings.results_url, site.store.keys.prefix).client
        last = chain(site.complete.s("a", deadline=60), site.complete.s()).apply_async()
        set_aside(site, last.parent.id, aside=3600)
        backend = site.app.backend
        for task in (last.parent.id, last.id):
            error = backend.prepare_exception(PoisonError("set aside"))
            meta = backend._get_result_meta(error, FAILURE, None, None)
            key = result_key(site.settings, task)
            results.set(key, backend.encode({**meta, "task_id": task}))
        (letter,) = dead_letters(site.store)
        key_of = partial(result_key, site.settings)
        assert resubmit(site.store, letter, key_of, results)
        assert not resubmit(site.store, letter, key_of, results)
        (due,) = site.store.client.zrange(
            site.store.keys.deadlines, 0, -1, withscores=True
        )
        assert due[0] == last.parent.id
        assert read_oldest(site.store, ["writer"])["writer"] > letter.at
        assert 50 < due[1] - site.store.now() <= 60
        site.engine("writer-0")
        site.worker()
        assert last.get(PATIENCE) == answer_text(answer_text("a"))
        results.close()
