"""The beat job."""

import os

from modelserver.control.steer import steer as steer_once
from modelserver.messaging.wire import STEER
from modelserver.store import connect
from tasks.app import app


# Without events: a tick every two seconds would push the requests out of Flower's list.
@app.task(  # type: ignore[untyped-decorator]
    name=STEER, ignore_result=True, expires=10, send_events=False, shared=False
)
def steer() -> int:
    """Read the fleet's state, decide, publish wishes; the number of actions."""
    settings = app.modelserver_settings
    store = connect(settings)
    # The connections of all looks count as one.
    store.unreadable = app.modelserver_unreadable
    try:
        owner = f"{settings.host}-{os.getpid()}"
        return len(steer_once(store, settings, owner))
    finally:
        store.client.close()
