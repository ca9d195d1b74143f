"""One start of one engine: a place, a process, and the question whether it is ready."""

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from launcher import diagnosis, engines, process
from launcher.engines import LOOPBACK, Place
from launcher.process import EngineProcess, Identity
from launcher.records import Record
from launcher.tools import Tools
from modelserver.client import EngineFault, prove
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.model import EngineSpec, ModelSpec
from modelserver.policy.lifecycle import CannotHeal, Died, Held

#: How long the cheap question may take.
KNOCK_SECONDS = 2.0


@dataclass(slots=True)
class Start:
    """A start under way; ``process`` is None where somebody else runs the engine.

    ``fault`` is what came instead of a token when it was last asked for one.
    """

    record: Record
    process: EngineProcess | None
    url: str
    fault: str = ""

    @property
    def place(self) -> Place:
        """Where it runs."""
        return Place(self.record.port, self.record.gpus)


def ending(start: Start, log: Path, starting: bool) -> Died | CannotHeal | None:
    """What the end of its head process means, None while that lives."""
    how = start.process.ended() if start.process else None
    if how is None:
        return None
    text = process.read_tail(log, start.record.log_offset)
    if starting and (cause := diagnosis.hopeless(text)):
        return CannotHeal(f"{cause}; see {log}")
    words = diagnosis.last_words(text)
    said = f", last line: {words}" if words else ""
    return Died(f"{how}{said}; see {log}")


def adopted(record: Record) -> Start:
    """The start that an earlier launcher made."""
    url = _url(record.spec, record.port)
    return Start(record, EngineProcess(record.process), url)


async def start(
    spec: EngineSpec, model: ModelSpec, tools: Tools
) -> Start | Held | CannotHeal:
    """Start an engine, or say why it has to wait or can never be started."""
    adapter = engines.adapter(model.engine)
    if adapter.starts_process:
        place = await tools.places.choose(spec, model)
        if isinstance(place, str):
            return Held(place)
    else:
        place = Place(0)
    try:
        incarnation = await tools.link.next_incarnation(spec.id)
    except StoreUnreachableError as error:
        return Held(str(error))
    try:
        async with tools.preparing:
            await asyncio.to_thread(adapter.prepare, model, tools.home)
        if adapter.starts_process:
            return _begin(spec, model, incarnation, place, tools)
    except ConfigurationError as error:
        tools.records.remove(spec.id)
        tools.places.release(spec.id)
        return CannotHeal(str(error), incarnation)
    nobody = Identity(0, 0.0, "")
    record = Record(spec, incarnation, nobody, 0, (), 0, time.time())
    return Start(record, None, spec.url)


def _begin(
    spec: EngineSpec,
    model: ModelSpec,
    incarnation: int,
    place: Place,
    tools: Tools,
) -> Start:
    adapter = engines.adapter(model.engine)
    launch = adapter.launch(model, place, tools.home)
    log = tools.log_of(spec.id)
    unborn = process.unborn()
    record = Record(
        spec=spec,
        incarnation=incarnation,
        process=unborn,
        port=place.port,
        gpus=place.gpus,
        log_offset=process.rotate(log),
        started_at=time.time(),
    )
    # Before there is a process, so that no crash of the launcher leaves one unknown.
    tools.records.write(record)
    title = f"engine={spec.id} incarnation={incarnation}"
    running = process.start(launch, log, title, unborn.mark)
    record = replace(record, process=running.identity)
    tools.records.write(record)
    return Start(record, running, _url(spec, place.port))


def _url(spec: EngineSpec, port: int) -> str:
    return spec.url or f"http://{LOOPBACK}:{port}"


async def try_ready(
    session: aiohttp.ClientSession, start: Start, model: ModelSpec, limit: float
) -> bool:
    """Whether the engine gives a token now; sets ``start.fault`` if it does not.

    Knocks first: an engine that does not listen yet is not worth a request.
    """
    timeout = aiohttp.ClientTimeout(total=KNOCK_SECONDS)
    try:
        async with session.get(start.url + "/v1/models", timeout=timeout):
            pass  # Whatever it says: endpoints lie, a token does not.
    except (aiohttp.ClientError, TimeoutError):
        start.fault = f"nothing listens at {start.url}"
        return False
    try:
        await prove(session, start.url, model.name, model.kind, limit)
    except EngineFault as error:
        start.fault = str(error)
        return False
    return True
