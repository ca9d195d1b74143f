"""A result that nobody wants any more costs its owner nothing."""

import gc
import time
from pathlib import Path

from celery import Celery

from modelserver.messaging.backend import Backend
from tests.support.processes import ValkeyProcess

#: A reader's own reconnecting takes about a minute before it gives up.
AT_ONCE_SECONDS = 10.0


def test_a_result_is_forgotten_at_once_where_the_server_is_gone(tmp_path: Path) -> None:
    valkey = ValkeyProcess(tmp_path).start()
    app = Celery("client", broker=valkey.url, set_as_current=False)
    app.conf.result_backend = f"{Backend.__module__}:{Backend.__name__}+{valkey.url}"
    result = app.send_task("echo", args=["hi"])
    assert app.backend.result_consumer.subscribed_to
    valkey.stop()
    began = time.monotonic()
    del result
    gc.collect()
    assert not app.backend.result_consumer.subscribed_to
    assert time.monotonic() - began < AT_ONCE_SECONDS
    app.close()
