"""One start of one engine: a place, a process, and the question whether it is ready."""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from launcher import engine_types
from launcher.engine.container import Box, boxed, rooted
from launcher.engine_types import LOOPBACK, Place, builtin
from launcher.host import process
from launcher.host.containers import Runtime, require_image
from launcher.host.process import (
    EngineProcess,
    Identity,
    Member,
    members,
    missing,
)
from launcher.host.records import Record
from launcher.host.secrets import lend_key, with_key
from launcher.host.tools import Tools
from launcher.startup_log import diagnosis, progress, weights
from launcher.startup_log.progress import StartProgress
from modelserver.engine_client import EngineFault, prove
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.policy.lifecycle import CannotHeal, Died, Held
from modelserver.values import EngineSpec, ModelSpec

_log = logging.getLogger(__name__)

#: An adopted engine that was ready has so long to prove itself again.
ADOPTED_SECONDS = 30.0
#: How long one question for a first token may take; a first one may compile kernels.
PROOF_SECONDS = 60.0
#: How long the cheap question may take.
KNOCK_SECONDS = 2.0
#: For so long an engine may outlive a process that it needs, in seconds.
LOST_SECONDS = 1.0
#: How long a new engine may take to settle.
SETTLE_SECONDS = 5.0


@dataclass(slots=True)
class Start:
    """A start under way; ``process`` is None where somebody else runs the engine.

    ``began`` is a monotonic time; ``patience`` is how many seconds a token may take, 0
    where that depends on the weights. ``fault`` is what came instead of a token when it
    was last asked for one; ``family`` are the processes that it needs once it serves,
    ``lost_at`` when one of them was first missed, 0 for never; ``sound`` is whether a
    token came.
    """

    record: Record
    process: EngineProcess | None
    url: str
    progress: StartProgress
    began: float
    patience: float = 0.0
    fault: str = ""
    family: tuple[Member, ...] = ()
    lost_at: float = 0.0
    sound: bool = False

    @property
    def limit(self) -> float:
        """Seconds that it may take to the first token."""
        return self.patience or progress.start_limit(self.progress.size)

    def overdue(self, now: float) -> bool:
        """Whether it is beyond its limit and does not get on either."""
        if self.sound:
            return False
        # One that was ready has nothing to load: its log shows the past.
        moved = float("-inf") if self.record.ready else self.progress.moved
        return progress.is_overdue(now, self.began, self.limit, moved)

    def proof_seconds(self, now: float) -> float:
        """How long a question for the first token may take."""
        if self.process is None:
            return PROOF_SECONDS
        return min(PROOF_SECONDS, max(1.0, self.began + self.limit - now))

    def delay(self, now: float) -> str:
        """What an engine that is not ready in time is told of."""
        said = f"not ready after {now - self.began:.0f} s (limit {self.limit:.0f} s)"
        doing = self.progress.doing
        last = f"the last thing it did: {doing}; " if doing else ""
        return f"{said}: {last}{self.fault or 'it does not listen'}"

    @property
    def place(self) -> Place:
        """Where it runs."""
        record = self.record
        return Place(record.port, record.gpus, uuids=record.uuids or record.spec.uuids)


def ending(start: Start, log: Path, starting: bool) -> Died | CannotHeal | None:
    """What the end of a process that it needs means, None while all of them live."""
    how = start.process.ended() if start.process else None
    if how is None:
        lost = missing(start.family)
        now = time.monotonic()
        start.lost_at = 0.0 if lost is None else start.lost_at or now
        # One that was told to end may still hand over what its core has finished.
        if lost is None or now - start.lost_at < LOST_SECONDS:
            return None
        how = f"its process {lost.title} (pid {lost.pid}) ended"
    text = process.read_tail(log, start.record.log_offset)
    if starting and (cause := diagnosis.hopeless(text)):
        return CannotHeal(f"{cause}; see {log}")
    words = diagnosis.last_words(text)
    said = f", last line: {words}" if words else ""
    return Died(f"{how}{said}; see {log}")


def adopted(record: Record, model: ModelSpec, tools: Tools) -> Start:
    """The start that an earlier launcher made."""
    age = max(0.0, time.time() - record.started_at)
    begun = _started(record, EngineProcess(record.process), model, tools)
    begun.began = time.monotonic() - age
    if record.ready:
        begun.began, begun.patience = time.monotonic(), ADOPTED_SECONDS
    return begun


def _started(
    record: Record, running: EngineProcess | None, model: ModelSpec, tools: Tools
) -> Start:
    try:
        path = builtin.model_path(model, tools.home)
    except ConfigurationError:
        path = ""  # The fleet file has changed since.
    files = weights.of(path, tools.secrets.known(model))
    return Start(
        record,
        running,
        _url(record.spec, record.port),
        StartProgress(tools.log_of(record.spec.id), record.log_offset, files),
        began=time.monotonic(),
        patience=model.start_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A start that is decided; ``runtime`` is None outside of containers."""

    spec: EngineSpec
    model: ModelSpec
    incarnation: int
    place: Place
    runtime: Runtime | None


async def start(
    spec: EngineSpec, model: ModelSpec, tools: Tools
) -> Start | Held | CannotHeal:
    """Start an engine, or say why it has to wait or can never be started."""
    adapter = engine_types.adapter(model.engine)
    runtime = None
    if model.image:
        found = await asyncio.to_thread(tools.containers.find)
        if isinstance(found, str):
            return Held(found)
        runtime = found
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
            await asyncio.to_thread(_prepare, model, runtime, tools)
        if adapter.starts_process:
            return _begin(_Plan(spec, model, incarnation, place, runtime), tools)
        lend_key(model, spec.url, tools.keys)
    except ConfigurationError as error:
        tools.records.remove(spec.id)
        tools.places.release(spec.id)
        return CannotHeal(str(error), incarnation)
    nobody = Identity(0, 0.0, "")
    record = Record(spec, incarnation, nobody, 0, (), 0, time.time(), model=model)
    return _started(record, None, model, tools)


def _prepare(model: ModelSpec, runtime: Runtime | None, tools: Tools) -> None:
    if runtime is None:
        engine_types.adapter(model.engine).prepare(model, tools.home)
        return
    records = tools.records.read_all()
    tools.containers.sweep(runtime, {record.process.mark for record in records})
    require_image(runtime, model.image)


def _begin(plan: _Plan, tools: Tools) -> Start:
    spec, model, place = plan.spec, plan.model, plan.place
    adapter = engine_types.adapter(model.engine)
    filled = tools.secrets.fill(model)
    filled = rooted(filled) if plan.runtime else filled
    launch = adapter.launch(filled, place, tools.home)
    log = tools.log_of(spec.id)
    unborn = process.unborn(plan.runtime.program if plan.runtime else "")
    record = Record(
        spec=spec,
        incarnation=plan.incarnation,
        process=unborn,
        port=place.port,
        gpus=place.gpus,
        uuids=place.uuids,
        log_offset=process.rotate(log),
        started_at=time.time(),
        model=model,
    )
    # Before there is a process, so that no crash of the launcher leaves one unknown.
    tools.records.write(record)
    title = f"engine={spec.id} incarnation={plan.incarnation}"
    launch = with_key(launch, model, _url(spec, place.port), tools.keys)
    if plan.runtime:
        gpus = place.uuids or tuple(map(str, place.gpus))
        labels = tools.containers.labels(spec.id)
        box = Box(plan.runtime, model.image, unborn.container, labels, gpus)
        box = replace(box, arguments=model.container_args)
        launch = boxed(launch, filled, box)
    running = process.start(launch, log, title, unborn)
    record = replace(record, process=running.identity)
    tools.records.write(record)
    return _started(record, running, model, tools)


def _url(spec: EngineSpec, port: int) -> str:
    return spec.url or f"http://{LOOPBACK}:{port}"


async def try_ready(
    session: aiohttp.ClientSession, start: Start, model: ModelSpec
) -> bool:
    """Whether the engine gives a token now; sets ``start.fault`` if it does not.

    Knocks first: an engine that does not listen yet is not worth a request.
    """
    if start.process is not None:
        await asyncio.to_thread(start.progress.look)
    timeout = aiohttp.ClientTimeout(total=KNOCK_SECONDS)
    try:
        async with session.get(start.url + "/v1/models", timeout=timeout):
            pass  # Whatever it says: endpoints lie, a token does not.
    except (aiohttp.ClientError, TimeoutError):
        start.fault = f"nothing listens at {start.url}"
        return False
    try:
        seconds = start.proof_seconds(time.monotonic())
        await prove(session, start.url, model.name, model.kind, seconds)
    except EngineFault as error:
        start.fault = str(error)
        return False
    start.sound = True
    if start.process is not None:
        await asyncio.to_thread(start.process.look_inside)
        start.record = replace(start.record, process=start.process.identity)
        start.family = members(start.process.identity)
        if path := engine_types.adapter(model.engine).settle_path:
            await _settle(session, start.url + path)
    return True


async def _settle(session: aiohttp.ClientSession, url: str) -> None:
    """Have a new engine do what is better done before it serves."""
    timeout = aiohttp.ClientTimeout(total=SETTLE_SECONDS)
    try:
        async with session.post(url, timeout=timeout) as response:
            if response.status != 200:
                _log.warning("%s answered %d", url, response.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        # It only serves less smoothly.
        _log.warning("%s failed: %r", url, error)
