"""The server of a model, its producers and workers, and what befalls them."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import redis
from kombu import Connection

from modelserver.messaging.transport import TRANSPORT
from modelserver.messaging.wire import COMPLETE
from modelserver.store.batch import DEADLINE, SUBMITTER, Batch, Delivery
from modelserver.store.keys import Keys
from modelserver.store.messages.delivery import Deliveries
from modelserver.store.scripts import queues as queue_scripts
from modelserver.store.server.connections import open_async
from modelserver.store.server.state import connect_to
from tests.model.state import READ_ALL, State

PREFIX = "t:"
KEYS = Keys(PREFIX)
QUEUES = ("m", "n")
#: The main lists of both queues.
MAINS = [main for queue in QUEUES for main in KEYS.queue(queue)]
#: Leases end when a model says so, and not before: seconds.
LEASE_SECONDS = 10_000.0
#: Copies all keys into the second database.
COPY_ALL = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  redis.call('COPY', key, key, 'DB', 1, 'REPLACE')
end
"""

T = TypeVar("T")


class Worker:
    """A worker's process, with what it believes to hold."""

    def __init__(self, deliveries: Deliveries) -> None:
        self.deliveries = deliveries
        self.held: dict[str, Delivery] = {}
        #: What it let go or lost; a late answer may still come.
        self.past: list[Delivery] = []

    @property
    def name(self) -> str:
        return self.deliveries.worker

    def let_go(self, tags: list[str]) -> None:
        """These are no longer its own."""
        self.past += [self.held.pop(tag) for tag in tags]


class Ground:
    """One real server and all that is needed to use it. Close it in the end."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.store = connect_to(url, PREFIX)
        self.loop = asyncio.new_event_loop()
        self.asynchronous = open_async(url, 4)
        options = {"global_keyprefix": PREFIX}
        self.connection = Connection(
            url, transport=TRANSPORT, transport_options=options
        )
        self.channel: Any = self.connection.default_channel
        self.snapshot_taken = False

    def clear(self) -> None:
        """Forget everything."""
        self.client.flushall()
        self.snapshot_taken = False

    def close(self) -> None:
        """End the connections; the server is somebody else's."""
        self.wait(self.asynchronous.aclose())
        self.loop.close()
        self.connection.release()
        self.store.client.close()
        self.client.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it to its end."""
        return self.loop.run_until_complete(work)

    def state(self) -> State:
        """All that the server keeps."""
        return State.of(KEYS, self.client.eval(READ_ALL, 0))

    def depth(self, queue: str) -> int:
        """Messages that wait, by the server's account."""
        lists = KEYS.queue(queue)
        return int(self.client.eval(queue_scripts.DEPTH, len(lists), *lists))

    def start_worker(self, name: str) -> Worker:
        """A new process, with a lease."""
        worker = Worker(Deliveries(self.asynchronous, KEYS, name))
        self.renew(worker)
        return worker

    def renew(self, worker: Worker) -> None:
        """Renew a lease."""
        self.wait(worker.deliveries.renew(b"{}", LEASE_SECONDS))

    def end_lease(self, worker: Worker) -> None:
        """Let a lease's time pass."""
        self.client.delete(KEYS.worker(worker.name))

    def commit(self, worker: Worker, batch: Batch) -> list[int]:
        """Carry out a batch; for each result what became of it."""
        return [int(each) for each in self.wait(worker.deliveries.commit(batch))]

    def put(self, queue: str, message: dict[str, Any]) -> None:
        """Publish as our clients do."""
        self.channel._put(queue, message)

    def put_plainly(self, main: str, message: str) -> None:
        """Publish as anybody may."""
        self.client.lpush(main, message)

    def take_snapshot(self) -> None:
        """What a replica has heard of."""
        self.client.eval("redis.call('SELECT', 1); redis.call('FLUSHDB')", 0)
        self.client.eval(COPY_ALL, 0)
        self.snapshot_taken = True

    def fail_over(self) -> None:
        """The replica takes over: what it has not heard of never was."""
        self.client.swapdb(0, 1)
        self.take_snapshot()


def message(
    task: str, submitter: str = "", priority: int = 0, deadline: float | None = None
) -> dict[str, Any]:
    """A request's message, as kombu hands it to the transport."""
    headers: dict[str, Any] = {"id": task, "task": COMPLETE}
    if submitter:
        headers[SUBMITTER] = submitter
    if deadline is not None:
        headers[DEADLINE] = deadline
    properties = {"priority": priority, "delivery_info": {}, "body_encoding": "utf-8"}
    return {
        "body": json.dumps([["a"], {}, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": properties,
    }
