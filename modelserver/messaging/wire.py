"""What both ends of the wire agree on: Celery's settings for clients and workers.

Also the one type beyond plain JSON: a vector travels as base64 of float32, several
times smaller and faster than decimal numbers, and is a list of floats again on arrival.
"""

import base64
import json
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from kombu.utils.json import register_type

from modelserver.errors import StoreUnreachableError
from modelserver.fleet.file import environment_defaults
from modelserver.messaging.catalogue import Catalogue, catalogue, read_down
from modelserver.messaging.names import CHAT as CHAT
from modelserver.messaging.names import COMPLETE as COMPLETE
from modelserver.messaging.names import CONTROL_QUEUE as CONTROL_QUEUE
from modelserver.messaging.names import EMBED as EMBED
from modelserver.messaging.names import KINDS as KINDS
from modelserver.messaging.names import ROWS as ROWS
from modelserver.messaging.names import STEER as STEER
from modelserver.messaging.names import STEER_QUEUE as STEER_QUEUE
from modelserver.server_address import plain_url, read_address
from modelserver.settings import Settings
from modelserver.store import Store, connect
from modelserver.store.fleet.availability import fleet_and_standings
from modelserver.store.keys import Keys

#: What Celery's settings put before the address of our result backend.
BACKEND = "modelserver.messaging.backend:Backend+"

#: A client's look for the models may take so many seconds.
LOOK_SECONDS = 2.0
#: A client's connection is there within so many seconds, or the request is refused.
CONNECT_SECONDS = 2.0
#: A client's message is taken within so many seconds, or the request is refused. Long
#: enough for a message of many megabytes.
PUBLISH_SECONDS = 10.0
#: How long a result is tried to be stored outside of a worker's pool, in kombu's terms:
#: a minute. A wait's own patience is in ``listening``.
RESULT_RETRY_POLICY = {
    "max_retries": 60,
    "interval_start": 0,
    "interval_step": 0.2,
    "interval_max": 1,
}


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector of float32 in little-endian bytes, base64 as an engine sent it."""

    base64: str

    @classmethod
    def of(cls, values: Iterable[float]) -> "Vector":
        """A vector from floats."""
        return cls(base64.b64encode(array("f", values).tobytes()).decode())

    def floats(self) -> list[float]:
        """The vector as plain floats."""
        return array("f", base64.b64decode(self.base64)).tolist()


def _arrive(text: str) -> Any:
    return Vector(text).floats()


register_type(Vector, "f32", lambda vector: vector.base64, _arrive)


def result_key(settings: Settings, task: str) -> str:
    """The key of a task's result, as Celery's backend makes it."""
    return Keys(settings.fleet.redis.prefix).result(task)


class CatalogueSource:
    """The models of the fleet in force; until there is one, those of the fleet file.

    Looks into the store at most once a second, and not at all once it is fed.
    """

    #: Seconds between two looks into the store.
    FRESH_SECONDS = 1.0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._text = ""
        self._down = ""
        self._read: Catalogue | None = None
        self._look_at = 0.0
        self._fed = False

    def after_fork(self) -> None:
        """Leave the connection to the parent; a forked child opens its own."""
        self._store = None

    def __call__(self) -> Catalogue:
        """The models of now. Raises StoreUnreachableError."""
        if not self.is_fresh:
            text, down = self._look()
            self._take(text)
            self._take_down(down)
            self._look_at = time.monotonic() + self.FRESH_SECONDS
        assert self._read is not None
        return self._read

    @property
    def is_fresh(self) -> bool:
        """Whether a call does not look into the store."""
        is_due = not self._fed and time.monotonic() > self._look_at
        return self._read is not None and not is_due

    def feed(self, text: str) -> None:
        """Go by this applied fleet, from now on without looking into the store.

        For a worker, whose loop must not wait for it.
        """
        self._fed = True
        self._take(text)

    def _take(self, text: str) -> None:
        if self._read is not None and text == self._text:
            return
        if text:
            values = json.loads(text)
            values["defaults"] |= environment_defaults()
        else:
            values = catalogue(self._settings.fleet)
        read = Catalogue.read(values)
        if not (text or read.models or self._settings.fleet_file.is_file()):
            read = replace(read, no_fleet=self._no_fleet())
        self._text, self._down, self._read = text, "", read

    def _no_fleet(self) -> str:
        prefix = self._settings.fleet.redis.prefix
        where = plain_url(self._settings.redis_url)
        return (
            f'Redis at {where} knows of no fleet with the prefix "{prefix}", and there '
            "is no fleet file here; correct MODELSERVER_REDIS_URL (the number at its "
            "end is the database) or MODELSERVER_REDIS_PREFIX, or start the fleet's "
            "launcher first"
        )

    def _take_down(self, down: str) -> None:
        if self._read is not None and down != self._down:
            self._down, self._read = down, self._read.with_down(read_down(down))

    def _look(self) -> tuple[str, str]:
        try:
            if self._store is None:
                self._store = connect(self._settings, LOOK_SECONDS, retries=1)
            with self._store.reachable():
                return fleet_and_standings(self._store)
        except StoreUnreachableError:
            if self._read is None and not self._settings.fleet.models:
                raise
            # Nothing counts as down: what was down may be back by now.
            return self._text, ""


def shared_settings(settings: Settings, models: CatalogueSource) -> dict[str, Any]:
    """Celery's settings that clients and workers share.

    Raises StoreUnreachableError where the embedded server does not run.
    """
    fleet, broker = settings.fleet, read_address(settings.redis_url)
    prefix = {"global_keyprefix": fleet.redis.prefix}
    timeouts = {"socket_connect_timeout": 5, "socket_timeout": 30}
    retries = {"retry_policy": RESULT_RETRY_POLICY}
    pool = {"max_connections": fleet.redis.max_connections}
    return {
        "broker_url": broker.celery_url(),
        "broker_use_ssl": dict(broker.tls),
        "broker_transport_options": {
            **prefix,
            **timeouts,
            **pool,
            **broker.transport_options(),
        },
        "broker_connection_retry_on_startup": True,
        "result_backend": BACKEND + settings.results_url,
        "result_backend_transport_options": prefix | retries,
        "result_backend_always_retry": True,
        "result_backend_max_retries": 10,
        "result_expires": fleet.defaults.result_expires_seconds,
        "redis_max_connections": fleet.redis.max_connections,
        "redis_socket_connect_timeout": 5,
        "redis_socket_timeout": 30,
        "redis_retry_on_timeout": True,
        "task_publish_retry_policy": {
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_default_queue": CONTROL_QUEUE,
        "task_routes": (Router(models),),
        "task_send_sent_event": False,
        "enable_utc": True,
    }


def client_settings(settings: Settings, models: CatalogueSource) -> dict[str, Any]:
    """Celery's settings of a client, which gives up sooner than a worker."""
    shared = shared_settings(settings, models)
    timeouts = {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": PUBLISH_SECONDS,
    }
    options = shared["broker_transport_options"] | timeouts
    return shared | {"broker_transport_options": options}


class Router:
    """Puts a request on its model's own queue."""

    def __init__(self, models: Callable[[], Catalogue]) -> None:
        self._models = models

    def __call__(
        self,
        name: str,
        args: Any,
        kwargs: dict[str, Any] | None,
        options: dict[str, Any],
        task: Any = None,
        **_: Any,
    ) -> dict[str, Any] | None:
        """Celery's routing hook; None leaves a task on its queue or that of control."""
        model = (kwargs or {}).get("model")
        if name not in KINDS or (model is None and options.get("queue")):
            return None
        return {"queue": self._models().pick(KINDS[name], model)}
