"""API keys of OpenAI's API: who may ask for what, how much, and what was used.

A key is stored as its digest, and the secret is shown once. What is used is counted by
key and minute for the limits, by key, day and model for the books.
"""

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from redis.asyncio import Redis

from modelserver.decoding import decode
from modelserver.store.keys import Keys
from modelserver.store.server.state import Store

#: How a secret begins, so that scanners of source code know one.
SECRET_HEAD = "sk-ms-"
#: Random bytes in a secret.
SECRET_BYTES = 32
#: What was used is kept so many days.
BOOKS_DAYS = 400
#: Counters of a minute outlive it by so many seconds.
MINUTE_SECONDS = 180
#: The fields of a day's books begin so; after it comes the model.
REQUESTS, PROMPT, COMPLETION = "requests:", "prompt:", "completion:"

#: Counts requests of a minute, unless the limits are reached. KEYS: the minute's
#: counters, the day's. ARGV: requests a minute, tokens a minute, tokens a day (0 is no
#: limit), seconds that the minute is kept, how many requests they are. Returns what was
#: reached ("" for nothing), the requests and tokens of the minute, the tokens of the
#: day, and how many of the requests were counted.
_COUNT = """
local minute = redis.call('HMGET', KEYS[1], 'requests', 'tokens')
local requests, tokens = tonumber(minute[1] or 0), tonumber(minute[2] or 0)
local today = tonumber(redis.call('HGET', KEYS[2], 'tokens') or 0)
local rpm, tpm, daily = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local reached, counted = '', 0
if daily > 0 and today >= daily then
  reached = 'day'
elseif tpm > 0 and tokens >= tpm then
  reached = 'tokens'
elseif rpm > 0 and requests >= rpm then
  reached = 'requests'
else
  counted = tonumber(ARGV[5])
  if rpm > 0 then counted = math.min(counted, rpm - requests) end
  requests = redis.call('HINCRBY', KEYS[1], 'requests', counted)
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return {reached, requests, tokens, today, counted}
"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without its secret."""

    name: str
    #: Models that it may ask for; none are all.
    models: tuple[str, ...] = ()
    #: The most urgent priority that its requests may have, from 0 to 9.
    priority: int = 0
    #: Most requests a minute; 0 is no limit.
    rpm: int = 0
    #: Most tokens a minute, of prompts and answers; 0 is no limit.
    tpm: int = 0
    #: Most tokens a day, in UTC; 0 is no limit.
    daily_tokens: int = 0
    #: When it was made, in seconds of the store's clock.
    made_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Used:
    """What one key used of one model on one day."""

    key: str
    #: ISO, in UTC.
    day: str
    model: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """What answers used: their number, and their tokens."""

    requests: int = 1
    prompt: int = 0
    completion: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt + self.completion

    def __add__(self, other: "Use") -> "Use":
        return Use(
            self.requests + other.requests,
            self.prompt + other.prompt,
            self.completion + other.completion,
        )


@dataclass(frozen=True, slots=True)
class Count:
    """A request's place within its key's limits."""

    #: The limit that is reached: "requests", "tokens", "day", or "".
    reached: str
    #: Requests of this minute, this one included.
    requests: int
    #: Tokens of this minute.
    tokens: int
    #: Tokens of this day.
    today: int
    #: How many of the requests were counted.
    counted: int = 0


def digest(secret: str) -> str:
    """What is stored of a secret. Random as it is, it needs no slow hash."""
    # What comes from outside may be no text.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


# By operators.


def add_api_key(store: Store, key: ApiKey) -> str:
    """Make a key; returns its secret. In place of one of the same name."""
    revoke_api_key(store, key.name)
    secret = SECRET_HEAD + secrets.token_urlsafe(SECRET_BYTES)
    made = dataclasses.replace(key, made_at=store.now())
    value = json.dumps(dataclasses.asdict(made))
    store.client.hset(store.keys.api_keys, digest(secret), value)
    return secret


def read_api_keys(store: Store) -> tuple[ApiKey, ...]:
    """All keys by name."""
    values: Mapping[Any, Any] = store.client.hgetall(store.keys.api_keys)
    keys = (_decoded(value) for value in values.values())
    return tuple(sorted(keys, key=lambda key: key.name))


def revoke_api_key(store: Store, name: str) -> bool:
    """No request with this key is taken any more; False if there is none."""
    values: Mapping[Any, Any] = store.client.hgetall(store.keys.api_keys)
    found = [at for at, value in values.items() if _decoded(value).name == name]
    if found:
        store.client.hdel(store.keys.api_keys, *found)
    return bool(found)


def read_books(store: Store, days: int) -> tuple[Used, ...]:
    """What was used on these last days, today's included, oldest first."""
    today = datetime.fromtimestamp(store.now(), timezone.utc).date()
    dates = [str(today - timedelta(days=back)) for back in reversed(range(days))]
    names = sorted(map(_text, store.client.smembers(store.keys.in_books)))
    pages = [(name, day) for day in dates for name in names]
    with store.client.pipeline(transaction=False) as pipe:
        for name, day in pages:
            pipe.hgetall(store.keys.books(name, day))
        values = pipe.execute()
    return tuple(
        used
        for (name, day), page in zip(pages, values, strict=True)
        for used in _of_day(name, day, page)
    )


def _of_day(name: str, day: str, values: Mapping[Any, Any]) -> list[Used]:
    numbers = {_text(field): int(value) for field, value in values.items()}
    models = {field.partition(":")[2] for field in numbers if ":" in field}
    return [
        Used(
            name,
            day,
            model,
            *(numbers.get(head + model, 0) for head in (REQUESTS, PROMPT, COMPLETION)),
        )
        for model in sorted(models)
    ]


# By the gateway.


async def find_api_key(
    client: Redis, keys: Keys, secret: str
) -> tuple[ApiKey | None, bool]:
    """The key of a secret, and whether there are keys at all. Raises RedisError."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.hget(keys.api_keys, digest(secret))
        pipe.hlen(keys.api_keys)
        value, number = await pipe.execute()
    return (None if value is None else _decoded(value)), bool(number)


async def count_request(client: Redis, keys: Keys, key: ApiKey, now: float) -> Count:
    """Count a request, unless a limit is reached. Raises RedisError."""
    found: Any = await client.eval(_COUNT, 2, *_counting(keys, key, now, 1))
    return _count_of(found)


async def find_uncounted(
    client: Redis, keys: Keys, tasks: Sequence[str], seconds: int
) -> list[bool]:
    """Which requests were not counted in the last seconds; from now on they are.

    Raises RedisError.
    """
    async with client.pipeline(transaction=False) as pipe:
        for task in tasks:
            pipe.set(keys.counted(task), 1, nx=True, ex=seconds)
        return [bool(is_first) for is_first in await pipe.execute()]


async def note_use(
    client: Redis, keys: Keys, key: str, model: str, use: Use, now: float
) -> None:
    """Enter what answers used. Raises RedisError."""
    async with client.pipeline(transaction=False) as pipe:
        _add_use(pipe, keys, key, model, use, now)
        await pipe.execute()


# By whoever carries out batches.


def count_rows(store: Store, key: ApiKey, rows: int) -> Count:
    """Count so many requests, as far as the limits allow; with 0 only look."""
    names_and_limits = _counting(store.keys, key, store.now(), rows)
    return _count_of(store.client.eval(_COUNT, 2, *names_and_limits))


def note_rows(store: Store, key: str, used: Mapping[str, Use]) -> None:
    """Enter what answers used, by model."""
    now = store.now()
    with store.client.pipeline(transaction=False) as pipe:
        for model, use in used.items():
            _add_use(pipe, store.keys, key, model, use, now)
        pipe.execute()


def _counting(keys: Keys, key: ApiKey, now: float, requests: int) -> list[str]:
    names = (keys.minute(key.name, int(now // 60)), keys.books(key.name, _day(now)))
    limits = (key.rpm, key.tpm, key.daily_tokens, MINUTE_SECONDS, requests)
    return [*names, *map(str, limits)]


def _count_of(reply: Any) -> Count:
    reached, *numbers = reply
    return Count(_text(reached), *map(int, numbers))


def _add_use(pipe: Any, keys: Keys, key: str, model: str, use: Use, now: float) -> None:
    minute, books = keys.minute(key, int(now // 60)), keys.books(key, _day(now))
    pipe.hincrby(minute, "tokens", use.tokens)
    pipe.expire(minute, MINUTE_SECONDS)
    pipe.hincrby(books, "tokens", use.tokens)
    pipe.hincrby(books, REQUESTS + model, use.requests)
    pipe.hincrby(books, PROMPT + model, use.prompt)
    pipe.hincrby(books, COMPLETION + model, use.completion)
    pipe.expire(books, BOOKS_DAYS * 86_400)
    pipe.sadd(keys.in_books, key)


def _day(now: float) -> str:
    return str(datetime.fromtimestamp(now, timezone.utc).date())


def _decoded(value: Any) -> ApiKey:
    return decode(ApiKey, json.loads(value))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
