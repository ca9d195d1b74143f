"""The blocking connection to the fleet's state in Redis."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from modelserver.errors import StoreUnreachableError
from modelserver.server_address import plain_url
from modelserver.settings import Settings
from modelserver.store.keys import Keys
from modelserver.store.scripts import state as state_scripts
from modelserver.store.server import trouble
from modelserver.store.server.connections import open_blocking
from modelserver.store.server.unfit import is_unfit

#: What is kept of control is deflated; a higher level costs more and saves little.
DEFLATE_LEVEL = 1
#: An option of redis-py: the reply as bytes, for values that are no text.
RAW = {NEVER_DECODE: True}


def connect(settings: Settings, timeout: float = 10, retries: int = 2) -> "Store":
    """Open the fleet's state; each command may take ``timeout`` seconds.

    Raises StoreUnreachableError with the remedy.
    """
    prefix = settings.fleet.redis.prefix
    return connect_to(settings.redis_url, prefix, timeout, retries)


def connect_to(url: str, prefix: str, timeout: float = 10, retries: int = 2) -> "Store":
    """Open what one server keeps. Raises StoreUnreachableError with the remedy."""
    store = open_store(url, prefix, timeout, retries)
    with store.reachable():
        try:
            store.client.ping()
        except redis.ResponseError as error:
            # Of what a connection begins with: its user, and its database.
            told = trouble.describe(error, store.url, prefix)
            raise StoreUnreachableError(told) from None
    return store


def open_store(url: str, prefix: str, timeout: float = 10, retries: int = 2) -> "Store":
    """The same without asking whether the server answers."""
    client = open_blocking(
        url,
        decode_responses=True,
        socket_connect_timeout=min(timeout, 5),
        socket_timeout=timeout,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries),
    )
    return Store(client, Keys(prefix), url=plain_url(url))


@dataclass(frozen=True, slots=True)
class ServerKind:
    """What a server says of itself."""

    #: "redis" or "valkey", or what others call themselves.
    name: str
    version: str
    #: "standalone", "cluster" or "sentinel".
    mode: str = "standalone"
    #: "master" or "replica".
    role: str = "master"

    def __str__(self) -> str:
        """The name and the version."""
        return f"{self.name} {self.version}"


class Store:
    """One connection pool to the fleet's state. Times are the server's clock."""

    def __init__(self, client: redis.Redis, keys: Keys, url: str = "") -> None:
        self.client = client
        self.keys = keys
        self.url = url
        #: The records that could not be read, which were logged.
        self.unreadable: set[str] = set()

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Turn a lost connection, or a right that is missing, into an error with its
        remedy, StoreUnreachableError. It quotes the cause, whose frames are redis-py's.
        """
        try:
            yield
        except redis.RedisError as error:
            lost = isinstance(error, (redis.ConnectionError, redis.TimeoutError))
            refused = trouble.is_about_rights(error) or is_unfit(error)
            if not lost and not refused:
                raise
            told = trouble.describe(error, self.url, self.keys.prefix)
            raise StoreUnreachableError(told) from None

    def now(self) -> float:
        """Seconds since the epoch by the server's clock, the same on all hosts."""
        seconds, micros = self.run("TIME")
        return int(seconds) + int(micros) / 1e6

    def server(self) -> ServerKind:
        """What the server says of itself."""
        # Unlike INFO, every user may ask this.
        reply: Any = self.run("HELLO")
        if not isinstance(reply, dict):
            reply = dict(zip(reply[::2], reply[1::2], strict=True))
        told = (
            str(reply.get(key, "")) for key in ("server", "version", "mode", "role")
        )
        return ServerKind(*told)

    def run(self, *command: Any, **options: Any) -> Any:
        """Run one command."""
        return self.client.execute_command(*command, **options)

    def run_script(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Run one of ``scripts``."""
        return self.client.eval(script, len(keys), *keys, *arguments)


def try_rights(store: Store) -> None:
    """Do a little of all that a fleet does; what it writes is gone at once.

    Raises what redis-py raises where the user may not.
    """
    store.run_script(state_scripts.TRY_RIGHTS, [f"{store.keys.prefix}doctor"])
    with store.client.pubsub() as listener:
        listener.subscribe(store.keys.changed)
        listener.psubscribe(store.keys.bell("*"))
        for _ in range(2):
            listener.get_message(timeout=5)
