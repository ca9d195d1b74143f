"""The end of one engine: asked, then forced, with what is known of it kept before."""

import asyncio
import logging
import time
from collections.abc import Callable

from launcher.engine.start import Start
from launcher.host.incidents import EndedEngine
from launcher.host.process import EngineProcess
from launcher.host.resources import HostResources
from modelserver.policy.lifecycle import Life
from modelserver.values import Cause

_log = logging.getLogger(__name__)

#: From SIGTERM to SIGKILL. Nothing is in flight then, and an idle SGLang takes 3-10 s.
STOP_SECONDS = 5.0
#: The same for an engine that hangs, which rarely hears a SIGTERM.
HUNG_STOP_SECONDS = 2.0


async def stop(
    start: Start,
    life: Life,
    inflight: int,
    resources: HostResources,
    in_a_hurry: Callable[[], bool],
) -> None:
    """Ask an engine to end and wait a little for that.

    What is known of it is kept first if it goes for a fault of its own.
    """
    if start.process is None:
        return
    if life.cause.is_fault and not in_a_hurry():
        await _keep_incident(start, life, inflight, resources)
    hung = life.cause is Cause.HUNG
    await _ask(start.process, HUNG_STOP_SECONDS if hung else STOP_SECONDS, in_a_hurry)


async def kill(
    start: Start, incident: Life | None, inflight: int, resources: HostResources
) -> None:
    """End every process of an engine by force; ``incident`` is worth keeping."""
    if start.process is None:
        return
    if incident is not None:
        await _keep_incident(start, incident, inflight, resources)
    left = await asyncio.to_thread(start.process.kill)
    if left:
        _log.error("engine=%s cannot end %s", start.record.spec.id, ", ".join(left))


async def _ask(
    process: EngineProcess, grace: float, in_a_hurry: Callable[[], bool]
) -> None:
    """SIGTERM, and ``grace`` seconds for it; returns as soon as the head has ended.

    SGLang drains without a limit and goes on to accept, vLLM aborts what is in flight:
    so this comes only when nothing is, or when that no longer matters.
    """
    until = time.monotonic() + grace
    process.terminate()
    while process.ended() is None and time.monotonic() < until:
        if in_a_hurry():
            break
        await asyncio.sleep(0.05)


async def _keep_incident(
    start: Start, life: Life, inflight: int, resources: HostResources
) -> None:
    """Write down what is known of an engine that is about to be ended by force."""
    record = start.record
    if start.process is None:
        return
    await resources.incidents.keep(
        EndedEngine(
            spec=record.spec,
            host=resources.host,
            incarnation=record.incarnation,
            state=life.state.value,
            reason=life.reason,
            process=start.process.identity,
            url=start.url,
            log=resources.log_of(record.spec.id),
            log_offset=record.log_offset,
            started_at=record.started_at,
            inflight=inflight,
        )
    )
