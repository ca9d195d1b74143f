"""kombu's Redis transport, with a bell for workers and an intake in place of BRPOP.

Publishing is kombu's own but for the bell: a message for an empty queue tells the
workers that wait for it. Reading is not: kombu takes a message by BRPOP and notes it as
unacknowledged in a second round trip, so a worker that dies in between loses it. A
worker attaches its intake to the channel instead. The intake takes messages and notes
them in one script; the channel's consumers say which queues it may read.
"""

import functools
import time
from collections.abc import Mapping
from typing import Any, Protocol

import orjson
from celery._state import get_current_worker_task
from celery.app.amqp import AMQP as CeleryAMQP
from kombu.connection import Connection as KombuConnection
from kombu.transport import redis, virtual

from modelserver.messaging.encoding import encode
from modelserver.messaging.envelope import slim, unescaped
from modelserver.messaging.followers import defer, origin
from modelserver.messaging.running_worker import find_worker, find_worker_of_thread
from modelserver.messaging.wire import KINDS, STEER
from modelserver.server_address import SENTINELS
from modelserver.store.batch import (
    DEADLINE,
    ONCE_SECONDS,
    RESUBMISSION,
    SENT,
    SUBMITTER,
)
from modelserver.store.keys import Keys, list_name
from modelserver.store.scripts import atomic as scripts
from modelserver.store.scripts import queues as queue_scripts
from modelserver.store.server import connections

#: Most lists of submitters that one script deletes.
MOST_PURGED_LISTS = 1_000


class MessageIntake(Protocol):
    """Takes the messages of the channel that it is attached to."""

    def ack(self, tag: str) -> None:
        """The message is dealt with."""

    def reject(self, tag: str, requeue: bool) -> None:
        """The message goes back to its queue, or nowhere."""

    def subscriptions_changed(self) -> None:
        """A queue was added to or cancelled from the channel."""


class IntakeQoS(virtual.QoS):
    """Hands acknowledgements to the intake. Never lets kombu read by itself."""

    def __init__(self, channel: Any, intake: MessageIntake) -> None:
        super().__init__(channel)
        self.intake = intake

    def can_consume(self) -> bool:
        """Answers no, so that kombu starts no BRPOP."""
        return False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Does nothing: the intake's script has noted the message."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge through the intake."""
        self.intake.ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject through the intake."""
        self.intake.reject(delivery_tag, requeue)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Does nothing: the intake outlives the channel and gives back by itself."""

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Does nothing: leases take the place of the visibility timeout."""


class Message(virtual.Message):
    """A message whose JSON body orjson decodes, unless kombu's types are in it.

    Made of a message that was read before, it is that message.
    """

    def __new__(cls, payload: Any = None, *_: Any, **__: Any) -> "Message":
        """A new message, or the one that there is."""
        return payload if isinstance(payload, cls) else super().__new__(cls)

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        if payload is not self:
            super().__init__(payload, channel=channel, **options)

    def decode(self) -> Any:
        """The body's value; keeps it, like kombu."""
        body = self.body
        kombus = "__type__" in body if isinstance(body, str) else b"__type__" in body
        if kombus or self.content_type != "application/json":
            return super().decode()
        if not self._decoded_cache:
            self._decoded_cache = orjson.loads(body)
        return self._decoded_cache


class ChannelPipeline(redis.PrefixedRedisPipeline, connections.StorePipeline):
    """kombu's pipeline, whose bindings a server at its memory limit takes too."""


class ChannelClient(redis.PrefixedStrictRedis, connections.StoreClient):
    """kombu's client, the same."""

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Commands in one round trip."""
        return ChannelPipeline(
            self.connection_pool,
            self.response_callbacks,
            transaction,
            shard_hint,
            global_keyprefix=self.global_keyprefix,
        )


class Channel(redis.Channel):
    """A Redis channel that rings and that an intake can attach to."""

    Message = Message
    body_encoding = "utf-8"
    connection_class = connections.StoreConnection
    connection_class_ssl = connections.SSLConnection
    intake: MessageIntake | None = None
    _blocking: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """A client; one blocking one for each pool, where kombu makes one a command."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._blocking is None or self._blocking.connection_pool is not self.pool:
            self._blocking = super()._create_client()
        return self._blocking

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """As kombu's, which knows no sentinels, and takes a class of its own for a
        socket of this host."""
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        options = self.connection.client.transport_options
        kind = parameters["connection_class"]
        if "path" in parameters:
            left = (connections.LeavesDemoted, kind)
            parameters["connection_class"] = type("UnixConnection", left, {})
        elif sentinels := options.get(SENTINELS):
            del parameters["host"], parameters["port"]
            parameters[SENTINELS] = sentinels
            led = (connections.FollowsSentinels, kind)
            parameters["connection_class"] = type("SentinelConnection", led, {})
        return parameters

    def _get_client(self) -> Any:
        super()._get_client()  # It checks the library's version.
        return functools.partial(ChannelClient, global_keyprefix=self.global_keyprefix)

    @functools.cached_property
    def _refresh_binding(self) -> Any:
        script = scripts.ALLOW_OOM + redis.REFRESH_BINDING
        return self._create_client().register_script(script)

    def encode_body(self, body: Any, encoding: str | None = None) -> Any:
        """A body as it is stored: text as it is, bytes in base64."""
        if isinstance(body, bytes):
            try:
                body = body.decode()
            except UnicodeDecodeError:
                return super().encode_body(body, "base64")
        return unescaped(body), encoding

    def attach(self, intake: MessageIntake) -> None:
        """Leave all reading and acknowledging to ``intake`` from now on."""
        self.intake = intake
        self._qos = IntakeQoS(self, intake)

    @property
    def readable_queues(self) -> frozenset[str]:
        """The queues that this channel's consumers ask for."""
        return frozenset(self.active_queues)

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Subscribe to a queue and tell the intake."""
        tag = super().basic_consume(queue, *args, **kwargs)
        if self.intake:
            self.intake.subscriptions_changed()
        return tag

    def _basic_cancel(self, consumer_tag: str) -> Any:
        done = super()._basic_cancel(consumer_tag)
        if self.intake:
            self.intake.subscriptions_changed()
        return done

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        priority = self._get_message_priority(message, reverse=False)
        prefix = self.global_keyprefix
        main = prefix + self._q_for_pri(queue, priority)
        script, names, values = put_command(Keys(prefix), main, queue, message)
        if follows := origin.get():
            script = scripts.PUT_ONCE
            names += (follows.unacked, follows.published)
            values += (_id(message), follows.tag)
        arguments: tuple[Any, ...] = (script, len(names), *names, *values)
        batch = kwargs.pop("_publish_batch", None)
        if batch is not None:
            batch.add("eval", *arguments)
            return
        with self.conn_or_acquire() as client:
            client.eval(*arguments)

    def _size(self, queue: str) -> int:
        lists = Keys(self.global_keyprefix).queue(queue)
        with self.conn_or_acquire() as client:
            return int(client.eval(queue_scripts.DEPTH, len(lists), *lists))

    def _purge(self, queue: str) -> int:
        lists = Keys(self.global_keyprefix).queue(queue)
        purged, more = 0, 1
        with self.conn_or_acquire() as client:
            while more:
                number, more = client.eval(
                    queue_scripts.PURGE, len(lists), *lists, MOST_PURGED_LISTS
                )
                purged += int(number)
        return purged


def put_command(
    keys: Keys, main: str, queue: str, message: dict[str, Any]
) -> tuple[str, tuple[str, ...], tuple[Any, ...]]:
    """How a message is put into a queue's main list: script, keys, arguments."""
    headers = message.get("headers") or {}
    due = headers.get(DEADLINE)
    # Only requests carry a deadline, and only our workers know side lists: what
    # others read, such as a user's own worker, goes where they look.
    request = headers.get("task") in KINDS
    task = _id(message) if request else ""
    owner = list_name(headers.get(SUBMITTER) or headers.get("origin"))
    again = headers.pop(RESUBMISSION, "")
    once = headers.pop(ONCE_SECONDS, "")
    if request:
        message = slim(message, queue)
        message["headers"][SENT] = round(time.time(), 2)
    names = (main, keys.deadlines, keys.result(task), keys.memory_short, keys.put(task))
    values = (
        *(encode(message), keys.bell(queue), task),
        *("" if due is None else due, owner if request else "", again, once),
    )
    return _script(headers), names, values


def _id(message: Mapping[str, Any]) -> str:
    return str((message.get("headers") or {}).get("id", ""))


def _script(headers: Mapping[str, Any]) -> str:
    """How a message is put: one that is new only while there is memory.

    Not new are the steps and retries of what was accepted; control's beat and what is
    no task, such as the reply to an inspection, must work just then.
    """
    task = headers.get("task")
    goes_on = headers.get("parent_id") or headers.get("retries")
    return scripts.PUT_ON if goes_on or task in (None, STEER) else scripts.PUT


class Transport(redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel


#: The transport above, as kombu finds it.
TRANSPORT = f"{Transport.__module__}:{Transport.__name__}"


class BrokerConnection(KombuConnection):
    """A connection that takes the transport above for Redis, also by TLS or sentinels.

    It shows the URL that it was made from, so that Flower and others know where they
    are. kombu's pools copy the transport, but not this class.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scheme = self.transport_cls
        if self._scheme in ("redis", "rediss", "sentinel"):
            self.transport_cls = TRANSPORT

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """The URL, its password masked unless asked for."""
        return str(super().as_uri(*args, **kwargs)).replace(
            TRANSPORT, str(self._scheme), 1
        )


class AMQP(CeleryAMQP):  # type: ignore[misc]
    """Celery's messaging over the connection above."""

    Connection = BrokerConnection

    def _retry_publish(self, publish: Any, *args: Any, **kwargs: Any) -> Any:
        """Publish a message; on a worker's loop in a thread, because it blocks.

        The tracer calls it for what follows a task: that waits for the answer.
        """
        task: Any = (
            get_current_worker_task() if find_worker_of_thread(self.app) else None
        )
        # The body of a chord is sent by ``delay``, and at once.
        if task and publish.__name__ == "apply_async" and origin.get() is None:
            defer(task.request, publish, kwargs)
            return None
        worker = find_worker(self.app)
        send = super()._retry_publish
        if worker is None:
            return send(publish, *args, **kwargs)
        return worker.run_in_thread(send, publish, *args, **kwargs)
