"""The request that every peer sends, with the cheapest client that fits its kind."""

import http.client
import json
import os
import threading

ENGINE_URL = os.environ["ENGINE_URL"]
REDIS_URL = os.environ["REDIS_URL"]
IN_FLIGHT = int(os.environ["IN_FLIGHT"])
PATH = "/v1/completions"
HEADERS = {"Content-Type": "application/json"}

_local = threading.local()
_sessions: dict = {}


def body(prompt: str) -> dict:
    """The engine's request."""
    return {"model": "bench", "prompt": prompt, "max_tokens": 64}


def complete(prompt: str) -> str:
    """Blocking, on a connection that the thread (or greenlet) keeps open."""
    connection = getattr(_local, "connection", None)
    if connection is None:
        host = ENGINE_URL.removeprefix("http://")
        connection = _local.connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("POST", PATH, json.dumps(body(prompt)), HEADERS)
    return json.loads(connection.getresponse().read())["choices"][0]["text"]


async def complete_async(prompt: str) -> str:
    """Non-blocking, on a session that the process keeps open."""
    import aiohttp
    import orjson

    session = _sessions.get("one")
    if session is None:
        connector = aiohttp.TCPConnector(limit=0)
        session = _sessions["one"] = aiohttp.ClientSession(connector=connector)
    async with session.post(
        ENGINE_URL + PATH, data=orjson.dumps(body(prompt)), headers=HEADERS
    ) as response:
        return orjson.loads(await response.read())["choices"][0]["text"]
