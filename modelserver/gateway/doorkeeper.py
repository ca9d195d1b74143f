"""Who may come in: API keys, their limits, and the books of what they used."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from modelserver.adapters import find_adapter_field
from modelserver.gateway.bodies import Asked
from modelserver.gateway.faults import Fault, Refused
from modelserver.messaging.answers import tokens as tokens_used
from modelserver.store import Keys
from modelserver.store.fleet.api_keys import (
    ApiKey,
    Count,
    Use,
    count_request,
    find_api_key,
    find_uncounted,
    note_use,
)

#: For so long nobody looks again whether there are keys by now, in seconds.
OPEN_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent a request."""

    #: None while there are no keys: then everybody may ask for everything.
    key: ApiKey | None = None
    #: What the client is told of its limits.
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """Whose files, batches and responses it sees: a key's, "" for nobody's."""
        return self.key.name if self.key else ""

    def may_ask(self, model: str) -> bool:
        """Whether it may ask for a model."""
        return not (self.key and self.key.models) or model in self.key.models


def find_secret(authorization: str) -> str:
    """The key in a header Authorization, after the word Bearer in any case, or alone.

    >>> find_secret("bearer  a"), find_secret("a"), find_secret("Bearer ")
    ('a', 'a', '')
    """
    scheme, _, secret = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip()
    return authorization.strip()


class Doorkeeper:
    """Checks keys against the store. Lives on a loop."""

    def __init__(
        self, client: Redis, keys: Keys, is_local: bool, counted_seconds: int
    ) -> None:
        self._client = client
        #: Whether only this machine can come: then nobody needs a key before there is
        #: one.
        self._is_local = is_local
        self._keys = keys
        #: So long repeats of a request may come.
        self._counted_seconds = counted_seconds
        #: Whether there was no key at the last look.
        self._is_open = is_local
        self._open_until = 0.0
        self._looking: asyncio.Task[bool] | None = None

    async def admit(self, authorization: str) -> Visitor:
        """Who comes with this header. Raises Refused, RedisError."""
        if self._is_open and await self._is_still_open():
            return Visitor()
        secret = find_secret(authorization)
        key, are_there_any = await find_api_key(self._client, self._keys, secret)
        if key is None and not are_there_any and self._is_local:
            self._is_open = True
            return Visitor()
        if key is not None:
            return Visitor(key)
        text = "the API key is not known here; ask the fleet's operators for one"
        if not secret:
            text = (
                "an API key is needed: send it in the header Authorization, as "
                '"Bearer sk-ms-..."; the fleet\'s operators make one'
            )
        raise Refused(Fault(401, text, code="invalid_api_key"))

    async def _is_still_open(self) -> bool:
        """Whether there is no key yet; all who ask at once go by one look."""
        if time.monotonic() < self._open_until:
            return True
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> bool:
        try:
            _, are_there_any = await find_api_key(self._client, self._keys, "")
            self._is_open = not are_there_any
            self._open_until = time.monotonic() + OPEN_SECONDS
            return self._is_open
        finally:
            self._looking = None

    async def count(
        self, visitor: Visitor, model: str, body: Mapping[str, Any]
    ) -> Visitor:
        """Count a request for a model. Raises Refused, RedisError."""
        key = visitor.key
        if key is None:
            return visitor
        if key.models and (field := find_adapter_field(body)):
            text = (
                f'{field} names an adapter, and the key "{key.name}" may ask for some '
                "models only; name the adapter as the model"
            )
            raise Refused(Fault(403, text, param=field, code="model_not_allowed"))
        if not visitor.may_ask(model):
            text = (
                f'the key "{key.name}" may not ask for "{model}"; it may for '
                f"{', '.join(key.models)}"
            )
            raise Refused(Fault(403, text, param="model", code="model_not_allowed"))
        now = time.time()
        count = await count_request(self._client, self._keys, key, now)
        headers = _headers(key, count, now)
        if count.reached:
            raise Refused(_over(key, count, now, headers))
        return Visitor(key, headers)

    async def note(
        self, visitor: Visitor, asked: Asked, usages: Mapping[int, Mapping[str, Any]]
    ) -> None:
        """Enter what calls used into the books; what has an id is counted once."""
        if visitor.key is None:
            return
        # The answer is there: its client gets it, whatever Redis says.
        with suppress(RedisError, OSError):
            ids = {place: asked.calls[place].id for place in usages}
            if any(ids.values()):
                is_new = await find_uncounted(
                    self._client, self._keys, [*ids.values()], self._counted_seconds
                )
                news = zip(usages.items(), is_new, strict=True)
                usages = dict(item for item, is_first in news if is_first)
                if not usages:
                    return
            found = [tokens_used({"usage": usage}) for usage in usages.values()]
            prompt, completion = (sum(each[at] or 0 for each in found) for at in (0, 1))
            use, name, now = Use(1, prompt, completion), visitor.key.name, time.time()
            await note_use(self._client, self._keys, name, asked.model, use, now)


def _headers(key: ApiKey, count: Count, now: float) -> dict[str, str]:
    """OpenAI's headers about the limits of a minute."""
    reset = f"{60 - now % 60:.0f}s"
    found = {}
    for name, most, used in (
        ("requests", key.rpm, count.requests),
        ("tokens", key.tpm, count.tokens),
    ):
        if most:
            found[f"x-ratelimit-limit-{name}"] = str(most)
            found[f"x-ratelimit-remaining-{name}"] = str(max(0, most - used))
            found[f"x-ratelimit-reset-{name}"] = reset
    return found


def _over(key: ApiKey, count: Count, now: float, headers: Mapping[str, str]) -> Fault:
    if count.reached == "day":
        text = (
            f'the key "{key.name}" has used its {key.daily_tokens:,} tokens of this '
            "day (UTC); ask for more, or go on tomorrow"
        )
        again, code, kind = 86_400 - now % 86_400, "insufficient_quota", ""
    else:
        most = key.tpm if count.reached == "tokens" else key.rpm
        text = (
            f'the key "{key.name}" may use {most:,} {count.reached} a minute; send '
            "more slowly"
        )
        again, code, kind = 60 - now % 60, "rate_limit_exceeded", count.reached
    retry = {"Retry-After": str(max(1, round(again)))}
    return Fault(429, text, kind or code, code=code, headers={**headers, **retry})
