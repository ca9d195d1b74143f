"""What both ends of the wire agree on: Celery's settings for clients and workers.

Also the one type beyond plain JSON: a vector travels as base64 of float32, several
times smaller and faster than decimal numbers, and is a list of floats again on arrival.
"""

import base64
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kombu.utils.json import register_type

from modelserver.catalogue import Catalogue, catalogue
from modelserver.model import Kind
from modelserver.settings import Settings
from modelserver.store import connect

#: Queue of the control tasks and of everything that is no request to a model.
CONTROL_QUEUE = "control"
#: The tasks' names, the same for every client and worker.
COMPLETE = "modelserver.complete"
CHAT = "modelserver.chat"
EMBED = "modelserver.embed"
STEER = "modelserver.steer"

KINDS = {
    COMPLETE: Kind.COMPLETION,
    CHAT: Kind.COMPLETION,
    EMBED: Kind.EMBEDDING,
}


#: How long ``.get()`` outlasts a server that is away: a minute, in kombu's terms. Not
#: longer: a program that ends with unanswered results waits for it as well.
PATIENCE = {
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
    """The key of a task's result, as Celery's backend names it."""
    return f"{settings.fleet.redis.prefix}celery-task-meta-{task}"


class CatalogueSource:
    """The fleet's models: from the fleet file, else from the store every minute."""

    #: Seconds for which what the store said is taken as it was.
    FRESH_SECONDS = 60.0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read: Catalogue | None = None
        self._read_at = 0.0

    def __call__(self) -> Catalogue:
        """The models of now. Raises StoreUnreachableError."""
        now = time.monotonic()
        if self._read is None or now - self._read_at > self.FRESH_SECONDS:
            fleet = self._settings.fleet
            values = catalogue(fleet) if fleet.models else self._from_store()
            self._read, self._read_at = Catalogue.read(values), now
            if not self._read.models:
                self._read_at = -self.FRESH_SECONDS
        return self._read

    def _from_store(self) -> dict[str, Any]:
        store = connect(self._settings)
        with store.reachable():
            return store.fleet() or {"models": [], "defaults": {}}


def shared_settings(settings: Settings) -> dict[str, Any]:
    """Celery's settings that clients and workers share.

    Raises StoreUnreachableError where the embedded server does not run.
    """
    fleet = settings.fleet
    prefix = {"global_keyprefix": fleet.redis.prefix}
    patience = {"socket_connect_timeout": 5, "socket_timeout": 30}
    pool = {"max_connections": fleet.redis.max_connections}
    return {
        "broker_url": settings.redis_url,
        "broker_transport_options": prefix | patience | pool,
        "broker_connection_retry_on_startup": True,
        "result_backend": f"modelserver.backend:Backend+{settings.results_url}",
        "result_backend_transport_options": prefix | {"retry_policy": PATIENCE},
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
        "task_routes": (Router(CatalogueSource(settings)),),
        "task_send_sent_event": False,
        "enable_utc": True,
    }


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
        """Celery's routing hook; None leaves a task on the control queue."""
        if name not in KINDS:
            return None
        return {"queue": self._models().pick(KINDS[name], (kwargs or {}).get("model"))}
