"""Whether a starting engine is ready: whether it listens and gives a token."""

import asyncio
import logging
import time
from dataclasses import replace

import aiohttp

from launcher import engine_types
from launcher.engine.start import Start
from launcher.host.listeners import find_stranger
from launcher.host.process import vital_processes
from modelserver.engine_client import prove
from modelserver.engine_protocol import EngineFault

_log = logging.getLogger(__name__)

#: Seconds that the question whether an engine listens at all may take.
KNOCK_SECONDS = 2.0
#: Seconds that the call of an adapter's ``settle_path`` may take.
SETTLE_CALL_SECONDS = 5.0
#: What the log says where that call fails.
UNSETTLED = "%s %s; its engine serves, with pauses now and then"


async def try_ready(session: aiohttp.ClientSession, start: Start) -> bool:
    """Whether the engine gives a token now; sets ``start.fault`` if it does not.

    Asks first whether it listens: before, it is not worth a request.
    """
    model = start.model
    if start.process is not None:
        await asyncio.to_thread(start.progress.look)
    timeout = aiohttp.ClientTimeout(total=KNOCK_SECONDS)
    try:
        async with session.get(start.url + "/v1/models", timeout=timeout):
            pass  # Any answer will do: only a token shows that it works.
    except TimeoutError:
        start.note(_silent(start))
        return False
    except aiohttp.ClientError:
        start.note(_closed(start))
        return False
    if who := await asyncio.to_thread(_find_stranger, start):
        start.note(who)
        return False
    if start.fault in ("", _silent(start), _closed(start)):
        start.note(f"{start.url} listens; it is asked for its first token")
    try:
        seconds = start.proof_seconds(time.monotonic())
        await prove(session, start.url, model.name, model.kind, seconds)
    except EngineFault as error:
        start.note(str(error))
        return False
    start.proved = True
    if start.process is not None:
        await asyncio.to_thread(start.process.look_inside)
        start.record = replace(start.record, process=start.process.identity)
        start.vital = vital_processes(start.process.identity)
        if not model.max_running and not start.record.ready:
            capacity = await _read_capacity(session, start)
            start.record = replace(start.record, capacity=capacity)
        if path := engine_types.adapter(model.engine).settle_path:
            await _settle(session, start.url + path)
    return True


async def _read_capacity(session: aiohttp.ClientSession, start: Start) -> int:
    """How many requests a new engine takes at once, 0 where that cannot be read."""
    engine = engine_types.adapter(start.model.engine)
    url = start.url + engine.capacity_path
    if not engine.capacity_path:
        return 0
    timeout = aiohttp.ClientTimeout(total=SETTLE_CALL_SECONDS)
    try:
        async with session.get(url, timeout=timeout) as response:
            page = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.warning("%s does not tell what its engine takes: %r", url, error)
        return 0
    return engine.capacity(page, start.record.capacity, start.model.kind)


def _closed(start: Start) -> str:
    return f"nothing listens at {start.url}"


def _silent(start: Start) -> str:
    return f"{start.url} listens and does not answer within {KNOCK_SECONDS:g} s"


def may_be_unseen(start: Start) -> bool:
    """Whether an engine's own processes may be where this user cannot look.

    Those of a container, which a command may start too, belong to another user.
    """
    runs_in = start.process.identity.runtime if start.process else ""
    return bool(runs_in or start.model.command)


def _find_stranger(start: Start) -> str:
    """What is to be said of a stranger on the engine's port, "" where there is none."""
    if start.process is None:
        return ""
    identity, port = start.process.identity, start.record.port
    if who := find_stranger(port, identity, may_be_unseen(start)):
        return (
            f"port {port} was taken by {who} before the engine listened; end that "
            f"process, or wait: the engine's next start gets another port"
        )
    return ""


async def _settle(session: aiohttp.ClientSession, url: str) -> None:
    """Have a new engine do what is better done before it serves; it may fail."""
    timeout = aiohttp.ClientTimeout(total=SETTLE_CALL_SECONDS)
    try:
        async with session.post(url, timeout=timeout) as response:
            if response.status != 200:
                _log.warning(UNSETTLED, url, f"answered {response.status}")
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.warning(UNSETTLED, url, f"failed: {error!r}")
