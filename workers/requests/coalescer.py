"""Sends texts to embed that came as single requests together, as one request.

An engine embeds 32 texts in one request several times faster than in 32. What arrives
within a moment, for one engine and with the same parameters, goes together; while the
engine has enough to do, texts go on collecting. If the engine refuses a group, its
texts are sent again one by one, so that the one at fault fails alone.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from modelserver.engine_protocol import EngineFault, RequestFault
from modelserver.messaging.answers import UnsoundVectorsError, in_order, tokens

#: Most texts in one request.
MOST_TEXTS = 64
#: How long a text waits for others, in seconds.
GATHER_SECONDS = 0.002
#: With so many requests under way, a group that is not full waits for one to end: small
#: requests would cost the engine more than they gain.
ENOUGH_UNDER_WAY = 3

#: An engine, and the parameters that texts must share to go together.
_Key = tuple[str, bytes]
#: Sends a body to an engine; returns its response.
Ask = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class _Group:
    """Texts that will go together, and who waits for each."""

    ask: Ask
    #: The request without its texts.
    body: dict[str, Any]
    #: Whether the texts have waited for others long enough.
    ripe: bool = False
    texts: list[str] = field(default_factory=list)
    #: One for each text.
    waiting: list["asyncio.Future[dict[str, Any]]"] = field(default_factory=list)
    sending: "asyncio.Task[None] | None" = None

    def left(self) -> None:
        """Somebody gave up; once all have, the engine need not go on."""
        if self.sending and all(future.done() for future in self.waiting):
            self.sending.cancel()


class Coalescer:
    """Groups by engine and parameters. Lives on the loop's thread."""

    def __init__(self) -> None:
        self._groups: dict[_Key, _Group] = {}
        self._under_way: Counter[_Key] = Counter()
        self._sending: set[asyncio.Task[None]] = set()

    async def embed(
        self, engine: str, body: dict[str, Any], ask: Ask
    ) -> dict[str, Any]:
        """The response for ``body``, whose input is one text, as if asked alone.

        Raises EngineFault, RequestFault.
        """
        loop = asyncio.get_running_loop()
        rest = {name: value for name, value in body.items() if name != "input"}
        key = (engine, orjson.dumps(rest, option=orjson.OPT_SORT_KEYS))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(ask, rest)
            loop.call_later(GATHER_SECONDS, self._ripen, key, group)
        future: asyncio.Future[dict[str, Any]] = loop.create_future()
        group.texts.append(body["input"])
        group.waiting.append(future)
        if len(group.texts) >= MOST_TEXTS:
            self._close(key, group)
        try:
            return await future
        except asyncio.CancelledError:
            group.left()
            raise

    def _ripen(self, key: _Key, group: _Group) -> None:
        """The moment is over: the group goes now, or when the engine has less to do."""
        group.ripe = True
        if self._under_way[key] < ENOUGH_UNDER_WAY:
            self._close(key, group)

    def _close(self, key: _Key, group: _Group) -> None:
        if self._groups.get(key) is not group:
            return
        del self._groups[key]
        self._under_way[key] += 1
        sending = asyncio.get_running_loop().create_task(self._send(group))
        group.sending = sending
        self._sending.add(sending)
        sending.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: _Key, done: "asyncio.Task[None]") -> None:
        self._sending.discard(done)
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]
        group = self._groups.get(key)
        if group is not None and group.ripe:
            self._close(key, group)

    async def _send(self, group: _Group) -> None:
        # Whoever gave up meanwhile (revoked, past its deadline) is not asked for.
        wanted = [
            (text, future)
            for text, future in zip(group.texts, group.waiting, strict=True)
            if not future.done()
        ]
        texts = [text for text, _ in wanted]
        futures = [future for _, future in wanted]
        try:
            responses = await _together(group, texts)
        except (RequestFault, EngineFault) as fault:
            # One that was alone has been asked alone; a broken connection would break
            # again.
            if len(wanted) == 1 or (isinstance(fault, EngineFault) and not fault.way):
                _fail(futures, fault)
                return
            await asyncio.gather(
                *[_alone(group, text, future) for text, future in wanted]
            )
        except Exception as error:
            _fail(futures, error)
        else:
            for future, response in zip(futures, responses, strict=True):
                if isinstance(response, Exception):
                    _fail([future], response)
                elif not future.done():
                    future.set_result(response)


async def _together(
    group: _Group, texts: list[str]
) -> list[dict[str, Any] | UnsoundVectorsError]:
    if not texts:
        return []
    content = texts[0] if len(texts) == 1 else texts
    response = await group.ask({**group.body, "input": content})
    return _split(response, texts)


async def _alone(
    group: _Group, text: str, future: "asyncio.Future[dict[str, Any]]"
) -> None:
    try:
        [response] = await _together(group, [text])
        if isinstance(response, Exception):
            raise response
    except Exception as error:
        _fail([future], error)
    else:
        if not future.done():
            future.set_result(response)


def _fail(futures: list["asyncio.Future[Any]"], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _split(
    response: dict[str, Any], texts: list[str]
) -> list[dict[str, Any] | UnsoundVectorsError]:
    """One response for each text; tokens are shared out by the texts' lengths.

    What is wrong with one entry alone is left for its request to find, but for a vector
    of another length than the others have.
    """
    data = response.get("data")
    if not isinstance(data, list) or len(data) != len(texts):
        count = len(data) if isinstance(data, list) else 0
        text = f"answered 200 with {count} vectors for {len(texts)} texts"
        raise EngineFault(text, way="wrong number")
    used, _ = tokens(response)
    total = sum(len(text) for text in texts) or 1
    try:
        data = in_order(data)
    except (TypeError, ValueError) as error:
        text = "answered 200 with data of the wrong shape"
        raise EngineFault(text, way="wrong shape") from error
    sizes = [_size(entry) for entry in data]
    usual, _ = Counter(filter(None, sizes)).most_common(1)[0] if any(sizes) else (0, 0)
    return [
        UnsoundVectorsError({0: "its vector is longer or shorter than others"})
        if size and size != usual
        else {
            **response,
            "data": [{**entry, "index": 0} if isinstance(entry, dict) else entry],
            "usage": {"prompt_tokens": round(used * len(text) / total)},
        }
        for text, entry, size in zip(texts, data, sizes, strict=True)
    ]


def _size(entry: Any) -> int:
    """The length of a vector as it came, 0 if it has none."""
    vector = entry.get("embedding") if isinstance(entry, dict) else None
    return len(vector) if isinstance(vector, (str, list)) else 0
