"""The blocking connection to the fleet's state in Redis."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from modelserver.errors import StoreUnreachableError
from modelserver.fleet_sections import plain_url
from modelserver.settings import Settings
from modelserver.store.connections import blocking
from modelserver.store.keys import Keys

#: What is kept of control is deflated; a higher level costs more and saves little.
DEFLATE_LEVEL = 1
#: An option of redis-py: the reply as bytes, for values that are no text.
RAW = {NEVER_DECODE: True}


def connect(settings: Settings) -> "Store":
    """Open the fleet's state. Raises StoreUnreachableError with the remedy."""
    url = settings.redis_url
    client: redis.Redis = redis.Redis.from_url(
        url,
        connection_class=blocking(url),
        decode_responses=True,
        socket_connect_timeout=5,
        socket_timeout=10,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
    )
    store = Store(client, Keys(settings.fleet.redis.prefix), url=plain_url(url))
    with store.reachable():
        client.ping()
    return store


class Store:
    """One connection pool to the fleet's state. Times are the server's clock."""

    def __init__(self, client: redis.Redis, keys: Keys, url: str = "") -> None:
        self.client = client
        self.keys = keys
        self.url = url

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Turn a lost connection into StoreUnreachableError."""
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StoreUnreachableError(
                f"Redis at {self.url} does not answer ({error}); start it, or correct "
                "redis.url in the fleet file or MODELSERVER_REDIS_URL"
            ) from error

    def now(self) -> float:
        """Seconds since the epoch by the server's clock, the same on all hosts."""
        seconds, micros = self.run("TIME")
        return int(seconds) + int(micros) / 1e6

    def server(self) -> tuple[str, str]:
        """The server's name ("redis" or "valkey") and version."""
        info: Any = self.client.info("server")
        name = str(info.get("server_name", "redis"))
        return name, str(info.get(f"{name}_version", info["redis_version"]))

    def run(self, *command: Any, **options: Any) -> Any:
        """Run one command."""
        return self.client.execute_command(*command, **options)

    def run_script(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Run one of ``scripts``."""
        return self.client.eval(script, len(keys), *keys, *arguments)
