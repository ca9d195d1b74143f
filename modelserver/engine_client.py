"""HTTP to one engine: requests, a proof of life, token counts.

Sorts what goes wrong into the two classes that matter: a fault of the engine, which is
tried again elsewhere, and a fault of the request, which goes to its caller.
"""

import functools
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson
import yarl

from modelserver.engine_protocol import (
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    REQUEST_FAULTS,
    RESPONSE_ENDS,
    TOO_LONG,
    EngineFault,
    RequestFault,
    message_in,
)
from modelserver.keyring import Keyring
from modelserver.tracing import Tracer
from modelserver.values import Kind

#: How long an idle connection is kept, in seconds. Engines close theirs after 5 s; a
#: request sent at that moment would make a sound engine look broken.
KEPT_SECONDS = 3.0
#: Counters of the tokens that an engine has computed. SGLang adds an answer's tokens
#: to the first when it is complete, and to the second on the way, read ones too; vLLM
#: counts read ones apart. Who is busy with long texts only must not look hung.
TOKEN_COUNTERS = re.compile(
    rb"^(?:sglang:(?:generation|realtime)|vllm:(?:generation|prompt))_tokens_total"
    rb"(?:\{[^}]*\})? ([0-9.eE+]+)$",
    re.M,
)
#: No limit but 5 s to connect: how long an answer may take is its caller's business.
UNLIMITED = aiohttp.ClientTimeout(total=None, sock_connect=5)
#: An engine may ask for no longer wait than this before another try, in seconds.
MOST_RETRY_AFTER_SECONDS = 10.0
#: What a proof of life asks for.
PROOF_PROMPT = "The"


def open_session(
    limit: int = 0, keys: Keyring | None = None, tracer: Tracer | None = None
) -> aiohttp.ClientSession:
    """A session for many requests at once to few engines; 0 means no limit.

    With ``keys`` every request carries its engine's API key, with ``tracer`` its trace.
    """
    middlewares = [_authorising(keys)] if keys is not None else []
    middlewares += [_tracing(tracer)] if tracer is not None else []
    connector = aiohttp.TCPConnector(
        limit=limit, ttl_dns_cache=300, keepalive_timeout=KEPT_SECONDS
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=UNLIMITED,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        skip_auto_headers=("User-Agent", "Accept"),
        middlewares=middlewares,
    )


def _authorising(keys: Keyring) -> aiohttp.ClientMiddlewareType:
    async def send(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        address = request.url.authority
        key = keys.key(address)
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        response = await handler(request)
        # An engine that was started again has another key.
        if response.status == 401 and (new := keys.reread(address)) not in ("", key):
            response.release()
            request.headers["Authorization"] = f"Bearer {new}"
            response = await handler(request)
        return response

    return send


def _tracing(tracer: Tracer) -> aiohttp.ClientMiddlewareType:
    async def send(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        tracer.inject(request.headers)
        return await handler(request)

    return send


def _within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=5)


@functools.lru_cache(maxsize=1024)
def _parsed(url: str) -> yarl.URL:
    """An engine's few URLs, parsed once."""
    return yarl.URL(url)


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Post one request and return the engine's JSON object.

    Raises EngineFault, RequestFault; TimeoutError after ``seconds``.
    """
    timeout = UNLIMITED if seconds is None else _within(seconds)
    try:
        async with session.post(
            _parsed(url),
            data=orjson.dumps(body),
            timeout=timeout,
            headers=headers,
            # No engine redirects; it would lead to what only this host can reach.
            allow_redirects=False,
        ) as response:
            content = await response.read()
            if response.status != 200:
                raise _refusal(response, content)
    except aiohttp.ClientError as error:
        kind = type(error).__name__
        lost = isinstance(error, aiohttp.ClientConnectionError)
        raise EngineFault(
            f"{url}: {kind}: {error}", way="" if lost else kind
        ) from error
    return _parse(url, content)


async def ask_in_parts(
    session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Post one request with ``stream``; the engine's chunks as they come.

    Raises EngineFault, also where the stream breaks off, and RequestFault.
    """
    try:
        async with session.post(
            _parsed(url),
            data=orjson.dumps(body),
            timeout=UNLIMITED,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise _refusal(response, await response.read())
            is_ended = False
            async for line in _lines(response.content):
                if not line.startswith(b"data:"):
                    continue
                content = line[5:].strip()
                if content == b"[DONE]":
                    return
                chunk = _chunk(url, content)
                is_ended = chunk.get("type") in RESPONSE_ENDS
                yield chunk
            if is_ended:
                return
    except aiohttp.ClientError as error:
        kind = type(error).__name__
        lost = isinstance(error, aiohttp.ClientConnectionError)
        raise EngineFault(
            f"{url}: {kind}: {error}", way="" if lost else kind
        ) from error
    lost_error = aiohttp.ClientConnectionError("the stream broke off")
    raise EngineFault(f"{url}: the stream broke off") from lost_error


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length; aiohttp's own end at 128 kB.

    The first chunk of a scored prompt has the likelihoods of all its tokens.
    """
    begun: list[bytes] = []
    async for data in content.iter_any():
        *ended, rest = data.split(b"\n")
        for line in ended:
            yield b"".join([*begun, line])
            begun = []
        begun.append(rest)


def _chunk(url: str, content: bytes) -> dict[str, Any]:
    chunk = _parse(url, content)
    if chunk.get("type") in ("response.failed", "error"):
        text = message_in(chunk.get("response", chunk))
        if TOO_LONG.search(text):
            raise RequestFault(text)
        raise EngineFault(f"{url}: {text}", way="broken off")
    said = chunk.get("error")
    if said is None and chunk.get("object") != "error":
        return chunk
    code = said.get("code") if isinstance(said, dict) else chunk.get("code")
    text = message_in(chunk)
    if code in REQUEST_FAULTS:
        raise RequestFault(text)
    raise EngineFault(f"{url}: {text}", way=f"status {code}")


def _parse(url: str, content: bytes) -> dict[str, Any]:
    try:
        answer = _loads(content)
    except (ValueError, RecursionError) as error:
        text = f"{url}: answered 200 with a body that is not JSON ({error})"
        raise EngineFault(text, way="not JSON") from error
    if not isinstance(answer, dict):
        text = f"{url}: answered 200 with a {type(answer).__name__}, not a JSON object"
        raise EngineFault(text, way="not JSON")
    return answer


def _loads(content: bytes) -> Any:
    """JSON; NaN and infinity, which Python's own encoder writes, become None."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        if b"NaN" not in content and b"Infinity" not in content:
            raise
        return json.loads(content, parse_constant=lambda name: None)


def _refusal(
    response: aiohttp.ClientResponse, content: bytes
) -> EngineFault | RequestFault:
    text = _reason(content)
    if response.status in REQUEST_FAULTS:
        return RequestFault(text, response.status)
    try:
        wait = float(response.headers.get("Retry-After", 0))
    except ValueError:
        wait = 0.0
    wait = min(wait, MOST_RETRY_AFTER_SECONDS) if wait > 0 else 0.0
    way = "" if wait or response.status == 429 else f"status {response.status}"
    return EngineFault(f"{response.url}: status {response.status}: {text}", wait, way)


def _reason(content: bytes) -> str:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content[:300].decode(errors="replace")
    return message_in(body)


async def prove(
    session: aiohttp.ClientSession,
    url: str,
    model: str,
    kind: Kind,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> float:
    """Have the engine generate one token (or one vector); returns the seconds taken.

    Raises EngineFault if nothing sound comes back within ``seconds``.
    """
    began = time.monotonic()
    try:
        if kind is Kind.EMBEDDING:
            body: dict[str, Any] = {"model": model, "input": PROOF_PROMPT}
            answer = await ask(session, url + EMBEDDINGS_PATH, body, seconds, headers)
            sound = bool(answer.get("data") and answer["data"][0].get("embedding"))
        else:
            body = {"model": model, "prompt": PROOF_PROMPT, "max_tokens": 1}
            answer = await ask(session, url + COMPLETIONS_PATH, body, seconds, headers)
            sound = bool(answer.get("choices"))
    except TimeoutError as error:
        raise EngineFault(f"{url}: no token within {seconds:g} s") from error
    except RequestFault as error:
        raise EngineFault(f"{url}: refused its proof of life: {error}") from error
    if not sound:
        raise EngineFault(f"{url}: answered its proof of life without a token")
    return time.monotonic() - began


async def metrics_page(
    session: aiohttp.ClientSession,
    url: str,
    seconds: float = 2.0,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """An engine's metrics in Prometheus' format, b"" if none come."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with session.get(
            url + "/metrics", timeout=timeout, headers=headers, allow_redirects=False
        ) as response:
            return await response.read()
    except (TimeoutError, aiohttp.ClientError):
        return b""


def count_tokens(page: bytes) -> float | None:
    """A sum that grows with each token, by an engine's metrics.

    None without such a counter; one that has never moved may not count at all.
    """
    return sum(float(value) for value in TOKEN_COUNTERS.findall(page)) or None


async def generated_tokens(session: aiohttp.ClientSession, url: str) -> float | None:
    """The tokens that an engine has computed, by its metrics; None if unknown."""
    return count_tokens(await metrics_page(session, url))
