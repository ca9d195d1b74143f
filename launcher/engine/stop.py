"""The end of one engine: it is asked to end, then forced, its incident is kept."""

import asyncio
import logging
import time
from collections.abc import Callable

from launcher.engine.start import Start
from launcher.host.incidents import EndedEngine
from launcher.host.process import EngineProcess
from launcher.host.process import survivors as find_survivors
from launcher.host.resources import HostResources
from launcher.host.secrets import forget_key
from launcher.host.survivors import Survivors
from modelserver.policy.lifecycle import Life
from modelserver.values import Cause

_log = logging.getLogger(__name__)

#: Seconds from SIGTERM to SIGKILL. Nothing is in flight by then; an idle SGLang takes 3
#: to 10 s to end by itself.
STOP_SECONDS = 5.0
#: Seconds before it is tried again to end an engine by force.
AGAIN_SECONDS = 1.0
#: Seconds from SIGTERM to SIGKILL for an engine that hangs: it rarely heeds a SIGTERM.
HUNG_STOP_SECONDS = 2.0


async def stop(
    start: Start,
    life: Life,
    inflight: int,
    resources: HostResources,
    in_a_hurry: Callable[[], bool],
) -> None:
    """Ask an engine to end and wait a little; keeps an incident if it is at fault.

    ``in_a_hurry`` says whether to wait no longer.
    """
    if start.process is None:
        return
    if life.cause.is_fault and not in_a_hurry():
        await _keep_incident(start, life, inflight, resources)
    hung = life.cause is Cause.HUNG
    await _terminate(
        start.process, HUNG_STOP_SECONDS if hung else STOP_SECONDS, in_a_hurry
    )


async def kill(
    start: Start, incident: Life | None, inflight: int, resources: HostResources
) -> None:
    """End every process of an engine by force; keeps ``incident`` first, if any."""
    if start.process is None:
        return
    if incident is not None:
        await _keep_incident(start, incident, inflight, resources)
    engine, uuids = start.record.spec.id, start.place.uuids
    process, survivors, has_ended = start.process, resources.survivors, False
    # Nothing of it is forgotten before, whatever this host is short of.
    while not has_ended:
        with resources.troubles.guard(f"engine {engine}", "end what is left of it"):
            await asyncio.to_thread(end_all, engine, process, uuids, survivors)
            has_ended = True
        if not has_ended:
            await asyncio.sleep(AGAIN_SECONDS)


def end_all(
    engine: str, process: EngineProcess, uuids: tuple[str, ...], survivors: Survivors
) -> None:
    """End every process of an engine by force, and take note of what cannot be."""
    if left := process.kill():
        _log.error("engine=%s cannot end %s", engine, ", ".join(left))
        survivors.note(engine, find_survivors(process.identity), uuids)


async def clear_up(
    engine: str,
    start: Start | None,
    incident: Life | None,
    inflight: int,
    resources: HostResources,
) -> None:
    """End what is left of an engine's processes and give its place back."""
    if start is not None:
        await kill(start, incident, inflight, resources)
        forget_key(start.url, resources.keys)
    resources.turns.end(engine)
    resources.allocation.release(engine)
    resources.records.remove(engine)


async def _terminate(
    process: EngineProcess, grace: float, in_a_hurry: Callable[[], bool]
) -> None:
    """Send SIGTERM; return when the head has ended, or after ``grace`` seconds.

    Comes when nothing is in flight, or when that no longer matters: at a SIGTERM SGLang
    goes on to accept requests, and vLLM aborts those that it has.
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
    """Write down what is known of an engine before it is ended by force."""
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
