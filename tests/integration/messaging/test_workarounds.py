"""What our code works around in Celery, kombu, Flower and Python, one test for each.

A test fails where a newer version makes its workaround unnecessary: take the workaround
out of the file that the test names, and the test with it. What is looked at is stock.
"""

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery, concurrency
from celery.app.defaults import NAMESPACES, flatten
from celery.concurrency.base import BasePool
from celery.worker.consumer import Consumer
from celery.worker.request import Request, create_request_cls
from flower.app import Flower
from flower.inspector import Inspector
from kombu.asynchronous import Hub
from kombu.connection import Connection as KombuConnection
from kombu.utils import compat as kombu_compat
from kombu.utils import json as kombu_json

from modelserver.messaging.transport import TRANSPORT, BrokerConnection
from tests.support.processes import ValkeyProcess, end, eventually

#: A stock application with a task, and a module that it names by a string only.
SHOP = """
from celery import Celery

app = Celery("shop", broker="{url}", backend="{url}")
app.conf.worker_pool = "{pool}"

@app.task(name="echo")
def echo(text):
    return text
"""


@contextmanager
def commands(url: str) -> Iterator[list[list[str]]]:
    """The words of all commands that the server gets within, filled in at the end."""
    seen: list[list[str]] = []
    with redis.Redis.from_url(url, socket_timeout=60) as watcher:
        monitor = watcher.monitor()
        with monitor:
            yield seen
            with redis.Redis.from_url(url) as marker:
                marker.echo("the end")
            while (command := monitor.next_command()["command"]) != "ECHO the end":
                seen.append(command.split())


def names(seen: list[list[str]]) -> list[str]:
    return [words[0].upper() for words in seen]


@pytest.fixture
def stock(valkey: ValkeyProcess) -> Iterator[Celery]:
    """A stock application on a real server."""
    app = Celery("stock", broker=valkey.url, backend=valkey.url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes a stock application; returns Celery's own command line for it."""
    celery = Path(sys.executable).with_name("celery")

    def write(url: str, pool: str = "threads") -> list[str]:
        (tmp_path / "shop.py").write_text(SHOP.format(url=url, pool=pool))
        return [str(celery), "-A", "shop", "worker", "-c", "1", "-l", "INFO"]

    return write


# kombu.


def test_kombu_takes_a_message_before_it_notes_it_as_taken(valkey: ValkeyProcess):
    """messaging/transport.py, workers/intake.py: we pull by one script instead.

    A consumer that dies between BRPOP and HSET takes the message with it.
    """
    with KombuConnection(valkey.url) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put("a letter")
        with commands(valkey.url) as seen:
            message = queue.get(timeout=60)
        message.ack()
        queue.close()
    done = names(seen)
    assert done.index("BRPOP") < done.index("HSET")
    assert not {"EVAL", "EVALSHA", "LMOVE", "BLMOVE"} & set(done)


def test_kombu_makes_a_client_for_every_command(valkey: ValkeyProcess):
    """messaging/transport.py: Channel._create_client keeps one for each pool."""
    with KombuConnection(valkey.url) as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is not second
    with BrokerConnection(valkey.url) as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second


def test_kombus_pools_make_connections_of_their_own_class(valkey: ValkeyProcess):
    """messaging/transport.py: Connection must hand its transport on to the pool's."""
    with BrokerConnection(valkey.url) as connection:
        pool = connection.Pool(1)
        with pool.acquire(block=True) as pooled:
            assert not isinstance(pooled, BrokerConnection)
        pool.force_close_all()


def test_kombu_shows_a_transport_of_ones_own_instead_of_the_url():
    """modelserver/messaging/transport.py: Connection.as_uri says redis:// again."""
    plain = KombuConnection("redis://127.0.0.1:6379/0", transport=TRANSPORT)
    assert not plain.as_uri().startswith("redis://")
    assert BrokerConnection("redis://127.0.0.1:6379/0").as_uri().startswith("redis://")


def test_kombu_reads_and_writes_json_by_the_standard_library():
    """messaging/transport.py and backend.py: orjson, several times faster."""
    assert kombu_json.json is json


# Celery.


@pytest.mark.parametrize("what", ["gossip", "mingle", "events_per", "buffer"])
def test_celery_has_no_setting_for(what: str):
    """workers/celery_hooks.py switches off gossip and mingle by a signal, thins events
    in a dispatcher and buffers them by a step."""
    assert not [name for name, _ in flatten(NAMESPACES) if what in name]


def test_celery_publishes_events_within_the_send_of_one(
    stock: Celery, valkey: ValkeyProcess
):
    """workers/celery_hooks.py: EventPublisher.start; no request waits for the flush."""
    with stock.connection_for_write() as connection:
        events = stock.events.Dispatcher(connection, buffer_group={"task"})
        with events, commands(valkey.url) as seen:
            for _ in range(100):
                events.send("task-sent", uuid="1")
    assert "PUBLISH" in names(seen)


def test_celery_leaves_acknowledgements_to_its_main_loop(stock: Celery):
    """workers/celery_hooks.py: ModelSubscriptions.start replaces call_soon_ack."""
    hub, acknowledged = Hub(), []
    try:
        worker = SimpleNamespace(use_eventloop=True)
        consumer = Consumer(print, app=stock, hub=hub, controller=worker)
        consumer.call_soon_ack(acknowledged.append, "a tag")
        assert not acknowledged
        next(hub.create_loop())
        assert acknowledged
    finally:
        hub.close()


class Recorder(BasePool):
    """A pool that keeps what it is given to execute."""

    def on_apply(self, target: Any, args: Any = None, *_: Any, **__: Any) -> None:
        self.args = args


def test_celery_hands_the_tracer_a_body_that_it_has_decoded_itself(stock: Celery):
    """workers/celery_hooks.py: the tracer gets the decoded body."""

    @stock.task(name="echo")
    def echo(text: str) -> str:
        return text

    echo.delay("hello")
    with stock.connection_for_read() as connection:
        message = stock.amqp.queues["celery"](connection).get()
        pool = Recorder(app=stock)
        kind = create_request_cls(Request, echo, pool, "here", None, app=stock)
        request = kind(message, app=stock, task=echo)
        request.execute_using_pool(pool)
        message.ack()
    assert request.args == ["hello"], "Celery decodes it only in the tracer"
    body, content_type = pool.args[3:5]
    assert isinstance(body, (str, bytes))
    assert content_type is not None


# Celery's own call.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")
def test_celery_reads_a_result_before_it_writes_it(
    stock: Celery, valkey: ValkeyProcess
):
    """messaging/backend.py: results go out in batches, guarded by the same script."""
    with commands(valkey.url) as seen:
        stock.backend.store_result("a-task", "an answer", "SUCCESS")
    done = [words[0].upper() for words in seen if "a-task" in " ".join(words)]
    assert done.index("GET") < min(done.index(name) for name in done if "SET" in name)


def test_celery_listens_for_each_result_as_it_is_sent(
    stock: Celery, valkey: ValkeyProcess
):
    """messaging/backend.py: on_task_call does nothing; listening.py in its place."""
    with commands(valkey.url) as seen:
        stock.send_task("echo", ("hello",))
    assert "SUBSCRIBE" in names(seen)


def test_kombu_resets_only_the_children_of_multiprocessing():
    """messaging/forks.py: for os.fork and gunicorn as well."""
    assert kombu_compat.register_after_fork.__module__.startswith(
        ("multiprocessing.", "billiard.")
    )


def test_celery_has_no_pool_over_asyncio():
    """workers/pool.py and bridge.py: a pool over one loop."""
    known = {"prefork", "eventlet", "gevent", "solo", "processes", "threads", "custom"}
    assert set(concurrency.get_available_pool_names()) <= known


def test_celery_finds_by_name_only_while_it_loads_the_application(
    shop: Callable[..., list[str]], tmp_path: Path
):
    """tasks/app.py: what settings name by a string is imported there."""
    (tmp_path / "later.py").write_text('raise SystemExit("later was found")')
    argv = shop("memory://", pool="later:Pool")
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "No module named 'later'" in done.stderr


def test_celery_shows_a_traceback_of_what_its_configuration_raises(
    shop: Callable[..., list[str]], tmp_path: Path
):
    """tasks/app.py: the command line gets one line instead."""
    argv = shop("memory://")
    with (tmp_path / "shop.py").open("a") as program:
        program.write("\n\ndef wrong():\n    raise LookupError('no server')\n")
        program.write("\napp = Celery('shop')\napp.add_defaults(wrong)\n")
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" in done.stderr


def test_celery_holds_what_is_not_due_and_logs_each_answer(
    shop: Callable[..., list[str]], valkey: ValkeyProcess, tmp_path: Path
):
    """workers/intake.py parks messages with an ETA; workers/celery_hooks.py keeps
    answers out of the log: _quieten_logs."""
    argv, log = shop(valkey.url), tmp_path / "worker.log"
    app = Celery("shop", broker=valkey.url, backend=valkey.url, set_as_current=False)
    app.send_task("echo", ("later",), countdown=3600)
    app.send_task("echo", ("a heron in the reeds",))
    client = redis.Redis.from_url(valkey.url)
    with log.open("wb") as output:
        worker = subprocess.Popen(argv, cwd=tmp_path, stdout=output, stderr=output)
    try:
        eventually(lambda: "a heron in the reeds" in log.read_text())
        eventually(lambda: not client.llen("celery"))
        # The other one is acknowledged by the main loop, perhaps after its answer.
        eventually(lambda: client.hlen("unacked") == 1)
    finally:
        end(worker)
        client.close()
        app.close()


# Python and Flower.


def test_wait_for_can_swallow_a_cancellation():
    """workers/intake.py and service.py: asyncio.timeout instead of wait_for."""
    if sys.version_info >= (3, 12):
        pytest.skip("wait_for is sound since Python 3.12; we support 3.11 as well")

    async def cancelled_after(steps: int) -> bool:
        event = asyncio.Event()
        task = asyncio.ensure_future(asyncio.wait_for(event.wait(), 10))
        await asyncio.sleep(0.01)
        event.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    outcomes = [asyncio.run(cancelled_after(steps)) for steps in (0, 1)]
    assert not all(outcomes)


def test_flower_asks_the_workers_only_when_it_is_told_to():
    """modelserver/cli/up.py: refresh_flower asks for it by a page's address."""
    flower = inspect.getsource(Flower)
    assert flower.count("self.update_workers()") == 1
    assert "self.update_workers()" in inspect.getsource(Flower.start)
    assert "PeriodicCallback" not in inspect.getsource(Inspector)
    assert "call_later" not in inspect.getsource(Inspector)
